-- What is not counted in tokens. Of events kept before, `event` alone says it.

ALTER TABLE usage_events ADD COLUMN output_images bigint NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN input_audio_ms bigint NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN output_audio_ms bigint NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN input_characters bigint NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN search_units bigint NOT NULL DEFAULT 0;
