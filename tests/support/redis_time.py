"""Lets time pass for the counters of limits and budgets in a Redis, whose clock nobody can set.

All moments that its scripts have written are moved back, which is the same as if the clock had
gone on: arrivals of rates, expiries of slots, of reservations and of replicas, the adoption of
counters, the buckets of rolling windows.
"""

from trunkline_server.store.redis import RedisClient, Script

_AGE = Script(b"""
local us, step = tonumber(ARGV[1]), tonumber(ARGV[2])
local buckets = step > 0 and math.floor(us / 1000000 / step) or 0
local function whole(number) return string.format('%.0f', number) end
for _, key in ipairs(redis.call('KEYS', 'trunkline:*')) do
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'string' then
    local arrival, written = string.match(redis.call('GET', key), '^(%S+) (%S+)$')
    if arrival then
      local moved = string.format('%.17g %.0f', arrival - us, written - us)
      redis.call('SET', key, moved, 'KEEPTTL')
    end
  elseif kind == 'zset' then
    local members = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for place = 1, #members, 2 do
      local head, bucket = string.match(members[place], '^(%S+ %d+ )(%d+)$')
      redis.call('ZREM', key, members[place])
      local member = members[place]
      if head and tonumber(bucket) > 0 then member = head .. whole(bucket - buckets) end
      redis.call('ZADD', key, whole(members[place + 1] - us), member)
    end
  elseif kind == 'hash' then
    local fields = redis.call('HGETALL', key)
    local moved = {}
    for place = 1, #fields, 2 do
      local name, value = fields[place], fields[place + 1]
      local bucket = string.match(name, '^b(%d+)$')
      if bucket then
        redis.call('HDEL', key, name)
        moved['b' .. whole(bucket - buckets)] = value
      elseif name == 'a' then
        moved[name] = whole(value - us)
      elseif name == 'o' then
        moved[name] = whole(value - buckets)
      end
    end
    for name, value in pairs(moved) do redis.call('HSET', key, name, value) end
  end
end
return 'done'
""")


async def let_pass(client: RedisClient, seconds: float, step: int = 0) -> None:
    """Lets so many seconds pass on a single server; whole steps of rolling windows of `step`."""
    words = (b"%d" % round(seconds * 1e6), b"%d" % step)
    assert await client.run(_AGE, [b"trunkline:{t}"], *words) == b"done"
