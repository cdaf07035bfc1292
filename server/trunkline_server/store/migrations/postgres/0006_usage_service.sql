-- The service that called, which budgets of services begin with. Events kept before say it in
-- `event` alone.

ALTER TABLE usage_events ADD COLUMN service TEXT NOT NULL DEFAULT '';
