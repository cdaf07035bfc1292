-- Counts the replicas heard of lately, this one too.
--
-- KEYS  a sorted set of replicas by the moment at which they are forgotten
-- ARGV  replica, lease_us, and last the generation of this server, of no use here
-- Reply their number.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local expiry = now + ARGV[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', expiry), ARGV[1])
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', expiry / 1000 + 1000))
return tostring(redis.call('ZCARD', KEYS[1]))
