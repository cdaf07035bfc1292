-- What is not counted in tokens. Of events kept before, `event` alone says it.

ALTER TABLE usage_events ADD COLUMN output_images INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN input_audio_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN output_audio_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN input_characters INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN search_units INTEGER NOT NULL DEFAULT 0;
