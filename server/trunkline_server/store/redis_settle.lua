-- Gives back and settles what was claimed. Keys, fields and times are those of redis_admit.lua.
--
-- KEYS  of each operation in turn: r 1, s 1, k 1, n 1, m 1, b 3 (counter, live, gone)
-- ARGV  of each operation in turn
--         'r' delta_us                  charges a rate more, or less if negative
--         's' holder count kept         frees slots, all but the first ones
--         'k' holder count lease_us     keeps slots, also those that expired too early
--         'n' member lease_us           prolongs a reservation that still stands
--         'm' keep_s                    sets a mark, a key of its own
--         'b' holder amount bucket truth generation age_us lag_us keep_s rolling
--                                       settles a reservation; a second time changes nothing
--       and last the generation of this server
-- Reply one number for each operation: for b what has been spent, for m 1 if the mark is new.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local generation = ARGV[#ARGV]

local function whole(number)
  return string.format('%.0f', number)
end

local function charge(key, delta)
  local tat = now
  local stored = redis.call('GET', key)
  if stored then
    local arrival, written = string.match(stored, '^(%S+) (%S+)$')
    tat = tonumber(arrival)
    written = tonumber(written)
    if now < written then tat = tat - (written - now) end
    if tat < now then tat = now end
  end
  tat = tat + delta
  if tat <= now then
    redis.call('DEL', key)
  else
    local lasts = math.max(1, math.ceil((tat - now) / 1000))
    redis.call('SET', key, string.format('%.17g %.0f', tat, now), 'PX', whole(lasts))
  end
end

local function settle(counter, live, gone, arg)
  local holder, amount, bucket, truth = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
  local member = holder .. ' ' .. amount .. ' ' .. bucket
  local delta, expire = nil, false
  if redis.call('ZREM', live, member) == 1 then
    redis.call('HINCRBY', counter, 'r', whole(0 - amount))
    delta = whole(truth - amount)
  elseif redis.call('ZREM', gone, member) == 1 then
    delta = truth -- Its holder was taken for dead and the amount given back.
  else
    local stored = redis.call('HMGET', counter, 'g', 'a')
    local lost = stored[1] ~= ARGV[arg + 5]
    -- The sums that seeded the counter hold what was settled well before.
    local counted = stored[1] == generation
      and now - ARGV[arg + 6] < tonumber(stored[2]) - ARGV[arg + 7]
    if lost and not counted and redis.call('ZADD', gone, 'NX', whole(now), 'late ' .. holder) == 1
    then
      delta, expire = truth, true
    end
  end
  if delta and ARGV[arg + 9] == '1'
    and tonumber(bucket) < tonumber(redis.call('HGET', counter, 'o') or 0)
  then
    delta = nil -- The bucket has left the window, with all that was in it.
  end
  if delta then
    redis.call('HINCRBY', counter, 'u', delta)
    if ARGV[arg + 9] == '1' then redis.call('HINCRBY', counter, 'b' .. bucket, delta) end
  end
  if expire then
    redis.call('EXPIRE', counter, ARGV[arg + 8])
    redis.call('EXPIRE', gone, ARGV[arg + 8])
  end
  local sums = redis.call('HMGET', counter, 'u', 'r')
  return tonumber(sums[1] or 0) - tonumber(sums[2] or 0)
end

local reply = {}
local key, arg = 1, 1
while arg < #ARGV do
  local kind = ARGV[arg]
  local result = 0
  if kind == 'r' then
    charge(KEYS[key], tonumber(ARGV[arg + 1]))
    key, arg = key + 1, arg + 2
  elseif kind == 's' then
    for number = ARGV[arg + 3] + 1, tonumber(ARGV[arg + 2]) do
      result = result + redis.call('ZREM', KEYS[key], ARGV[arg + 1] .. '#' .. number)
    end
    key, arg = key + 1, arg + 4
  elseif kind == 'k' then
    local lasts = now + ARGV[arg + 3]
    for number = 1, tonumber(ARGV[arg + 2]) do
      redis.call('ZADD', KEYS[key], whole(lasts), ARGV[arg + 1] .. '#' .. number)
    end
    redis.call('PEXPIREAT', KEYS[key], whole(lasts / 1000 + 1000))
    key, arg = key + 1, arg + 4
  elseif kind == 'n' then
    redis.call('ZADD', KEYS[key], 'XX', whole(now + ARGV[arg + 2]), ARGV[arg + 1])
    key, arg = key + 1, arg + 3
  elseif kind == 'm' then
    result = redis.call('SET', KEYS[key], '1', 'NX', 'EX', ARGV[arg + 1]) and 1 or 0
    key, arg = key + 1, arg + 2
  else
    result = settle(KEYS[key], KEYS[key + 1], KEYS[key + 2], arg)
    key, arg = key + 3, arg + 10
  end
  reply[#reply + 1] = whole(result)
end
return table.concat(reply, ' ')
