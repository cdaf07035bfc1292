-- Reads what a spend counter holds at this moment, and changes nothing. Keys and fields are those
-- of redis_admit.lua.
--
-- KEYS  counter, live
-- ARGV  step_s steps, and last the generation of this server, of no use here
-- Reply what is used and what of it is reserved: without orphans whose time is up, and of a
--       rolling window without the buckets that have left it.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local step, steps = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = math.floor(now / 1000000 / step) - steps

local function within(bucket)
  return steps == 0 or tonumber(bucket) >= oldest
end

local sums = redis.call('HMGET', KEYS[1], 'u', 'r')
local used, reserved = tonumber(sums[1] or 0), tonumber(sums[2] or 0)
if steps > 0 then
  used = 0
  local stored = redis.call('HGETALL', KEYS[1])
  for place = 1, #stored, 2 do
    local bucket = string.match(stored[place], '^b(%d+)$')
    if bucket and within(bucket) then used = used + tonumber(stored[place + 1]) end
  end
end
if steps > 0 then
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local amount, bucket = string.match(member, ' (%d+) (%d+)$')
    if not within(bucket) then reserved = reserved - amount end
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))) do
  local amount, bucket = string.match(member, ' (%d+) (%d+)$')
  if within(bucket) then
    used = used - amount
    reserved = reserved - amount
  end
end
return string.format('%.0f %.0f', used, reserved)
