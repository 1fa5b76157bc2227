-- Notes that calls of an instance wait for somebody of a group to come.
-- KEYS  1 waiters of the group, 2 its instances
-- ARGV  1 the instance, 2 for how many ms it waits, unless it says so again
-- Says  1 if somebody may be there, else 0
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('EXISTS', KEYS[2])
