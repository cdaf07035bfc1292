-- Decides on all claims of one call at once: either every claim is granted or nothing changes.
--
-- KEYS  of each claim in turn: rate 1, slots 1, spend 3 (counter, live, gone)
-- ARGV  holder, then of each claim in turn
--         'r' cost_us tolerance_us
--         's' capacity lease_us count
--         'b' amount cap lease_us keep_s step_s steps seed
--       and last the generation of this server
-- Reply 'G', for each spend claim its used sum and its bucket, and the generation;
--       'S' and the places (from 0) of the spend claims that need a seed;
--       'D', the place of the claim that denies and the wait: microseconds, or
--       -1 never, -2 not known, -3 until the period ends.
--
-- Times are microseconds of the server's clock. A rate is a theoretical arrival time (GCRA)
-- with the moment it was written, so that a clock set back does not count as time to wait.
-- Slots are a sorted set of holders by expiry. A spend counter is a hash: g generation,
-- a adopted at, u used (settled and reserved), r reserved, o oldest bucket of the window, b<n> used in
-- bucket n of a rolling window. Its reservations are members
-- "holder amount bucket" of `live` by expiry; the expired ones move to `gone`, so that a late
-- settlement still counts. A counter of another generation was lost or is stale: it is adopted
-- with the ledger's sums as the floor of what has been spent.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local holder = ARGV[1]
local generation = ARGV[#ARGV]
local DAY = 86400000000

local function whole(number)
  return string.format('%.0f', number)
end

local function rate(key, cost, tolerance)
  local tat = now
  local stored = redis.call('GET', key)
  if stored then
    local arrival, written = string.match(stored, '^(%S+) (%S+)$')
    tat = tonumber(arrival)
    written = tonumber(written)
    if now < written then tat = tat - (written - now) end
    if tat < now then tat = now end
  end
  local wanted = tat + cost
  if cost > tolerance then return wanted, -1 end
  -- Half a microsecond, for the rounding of doubles of this size.
  if wanted - now > tolerance + 0.5 then return wanted, math.ceil(wanted - tolerance - now) end
  return wanted, 0
end

local function bump(counter, bucket, rolling, delta)
  if rolling and tonumber(bucket) < tonumber(redis.call('HGET', counter, 'o') or 0) then
    return -- The bucket has left the window, with all that was in it.
  end
  redis.call('HINCRBY', counter, 'u', delta)
  if rolling then redis.call('HINCRBY', counter, 'b' .. bucket, delta) end
end

local function adopt(counter, live, rolling, seed, keep)
  local reserved, held = {}, 0
  for _, member in ipairs(redis.call('ZRANGE', live, 0, -1)) do
    local amount, bucket = string.match(member, ' (%d+) (%d+)$')
    reserved[bucket] = (reserved[bucket] or 0) + amount
    held = held + amount
  end
  local sums, used = {}, 0
  local stored = redis.call('HGETALL', counter)
  for place = 1, #stored, 2 do
    local bucket = string.match(stored[place], '^b(%d+)$')
    if rolling and bucket then sums[bucket] = tonumber(stored[place + 1]) end
    if not rolling and stored[place] == 'u' then sums['0'] = tonumber(stored[place + 1]) end
  end
  for bucket, amount in string.gmatch(seed, '(%d+):(%d+)') do
    local floor = tonumber(amount) + (reserved[bucket] or 0)
    if floor > (sums[bucket] or 0) then sums[bucket] = floor end
  end
  for bucket, amount in pairs(sums) do
    used = used + amount
    if rolling then redis.call('HSET', counter, 'b' .. bucket, whole(amount)) end
  end
  redis.call('HSET', counter, 'u', whole(used), 'r', whole(held), 'a', whole(now))
  redis.call('EXPIRE', counter, keep)
  -- A seed that is only a stopgap leaves the counter to be adopted again.
  if string.sub(seed, 1, 1) ~= '?' then redis.call('HSET', counter, 'g', generation) end
end

-- Gives back what orphans reserved; whether there were any.
local function sweep(counter, live, gone, rolling, keep)
  local expired, found = nil, false
  repeat
    expired = redis.call('ZRANGEBYSCORE', live, '-inf', whole(now), 'LIMIT', 0, 100)
    for _, member in ipairs(expired) do
      local amount, bucket = string.match(member, ' (%d+) (%d+)$')
      redis.call('ZREM', live, member)
      redis.call('ZADD', gone, whole(now), member)
      redis.call('HINCRBY', counter, 'r', whole(0 - amount))
      bump(counter, bucket, rolling, whole(0 - amount))
    end
    if #expired > 0 then
      found = true
      redis.call('ZREMRANGEBYSCORE', gone, '-inf', whole(now - DAY))
      redis.call('EXPIRE', gone, keep)
    end
  until #expired < 100
  return found
end

local function buckets(counter)
  local found = {}
  local stored = redis.call('HGETALL', counter)
  for place = 1, #stored, 2 do
    local bucket = string.match(stored[place], '^b(%d+)$')
    if bucket then
      found[#found + 1] = {number = tonumber(bucket), used = tonumber(stored[place + 1])}
    end
  end
  table.sort(found, function(one, other) return one.number < other.number end)
  return found
end

-- Drops what has left the window; the oldest, partly left bucket counts in full.
local function prune(counter, current, steps)
  local oldest = tonumber(redis.call('HGET', counter, 'o') or 0)
  if oldest >= current - steps then return end
  for _, bucket in ipairs(buckets(counter)) do
    if bucket.number < current - steps then
      redis.call('HINCRBY', counter, 'u', whole(0 - bucket.used))
      redis.call('HDEL', counter, 'b' .. whole(bucket.number))
    end
  end
  redis.call('HSET', counter, 'o', whole(current - steps))
end

local function spend_wait(counter, amount, cap, step, steps, used)
  if amount > cap then return -1 end
  if steps == 0 then return -3 end
  for _, bucket in ipairs(buckets(counter)) do
    used = used - bucket.used
    if used + amount <= cap then
      return math.max(1, math.ceil((bucket.number + steps + 1) * step * 1000000 - now))
    end
  end
  return -2
end

local claims, unseeded = {}, {}
local denied, longest = nil, 0
local function deny(place, wait)
  -- By how long it will stand: what is not known counts as an hour, a period as a month.
  local weight = wait
  if wait == -3 then weight = DAY * 30 elseif wait == -2 then weight = DAY / 24
  elseif wait == -1 then weight = DAY * 10000 end
  if denied == nil or weight > denied.weight then
    denied = {place = place, wait = wait, weight = weight}
  end
end

local key, arg, place = 1, 2, 0
while arg < #ARGV do
  local kind = ARGV[arg]
  local claim = {kind = kind, key = KEYS[key], arg = arg}
  if kind == 'r' then
    local wait
    claim.tat, wait = rate(KEYS[key], tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]))
    if wait ~= 0 then deny(place, wait) end
    key, arg = key + 1, arg + 3
  elseif kind == 's' then
    redis.call('ZREMRANGEBYSCORE', KEYS[key], '-inf', whole(now))
    local capacity, count = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 3])
    if count > capacity then
      deny(place, -1)
    elseif redis.call('ZCARD', KEYS[key]) + count > capacity then
      deny(place, -2)
    end
    key, arg = key + 1, arg + 4
  else
    local counter, live, gone = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local amount, cap = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
    local step, steps = tonumber(ARGV[arg + 5]), tonumber(ARGV[arg + 6])
    local seed = ARGV[arg + 7]
    claim.live, claim.rolling, claim.bucket = live, steps > 0, '0'
    if steps > 0 then claim.bucket = whole(math.floor(now / 1000000 / step)) end
    local stored = redis.call('HMGET', counter, 'g', 'u')
    local adopted = stored[1] == generation
    if not adopted and seed == '' then
      unseeded[#unseeded + 1] = place
    else
      local changed = not adopted
      if not adopted then adopt(counter, live, claim.rolling, seed, ARGV[arg + 4]) end
      if sweep(counter, live, gone, claim.rolling, ARGV[arg + 4]) then changed = true end
      if steps > 0 then
        prune(counter, tonumber(claim.bucket), steps)
        redis.call('EXPIRE', counter, ARGV[arg + 4])
        changed = true
      end
      claim.used = tonumber(changed and redis.call('HGET', counter, 'u') or stored[2] or 0)
      if claim.used + amount > cap then
        deny(place, spend_wait(counter, amount, cap, step, steps, claim.used))
      end
    end
    key, arg = key + 3, arg + 8
  end
  place = place + 1
  claims[place] = claim
end

if #unseeded > 0 then return 'S ' .. table.concat(unseeded, ' ') end
if denied then return 'D ' .. denied.place .. ' ' .. whole(denied.wait) end

local reply = {'G'}
for _, claim in ipairs(claims) do
  arg = claim.arg
  if claim.kind == 'r' then
    local lasts = math.max(1, math.ceil((claim.tat - now) / 1000))
    redis.call('SET', claim.key, string.format('%.17g %.0f', claim.tat, now), 'PX', whole(lasts))
  elseif claim.kind == 's' then
    local expiry = whole(now + ARGV[arg + 2])
    for number = 1, tonumber(ARGV[arg + 3]) do
      redis.call('ZADD', claim.key, expiry, holder .. '#' .. number)
    end
    redis.call('PEXPIREAT', claim.key, whole((now + ARGV[arg + 2]) / 1000 + 1000))
  else
    local amount, keep = ARGV[arg + 1], ARGV[arg + 4]
    redis.call('HINCRBY', claim.key, 'r', amount)
    bump(claim.key, claim.bucket, claim.rolling, amount)
    local member = holder .. ' ' .. amount .. ' ' .. claim.bucket
    redis.call('ZADD', claim.live, whole(now + ARGV[arg + 3]), member)
    redis.call('EXPIRE', claim.live, keep)
    reply[#reply + 1] = whole(claim.used + amount)
    reply[#reply + 1] = claim.bucket
  end
end
reply[#reply + 1] = generation
return table.concat(reply, ' ')
