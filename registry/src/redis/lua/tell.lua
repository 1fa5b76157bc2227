-- Says how many of a group an instance holds, and who has waited for somebody of it to come. First the one and then
-- the other, and whoever waits does so first and looks then: one of them sees the other.
-- KEYS  1 instances of the group, 2 its waiters, 3 calls that wait to be taken, 4 calls that were
-- ARGV  1 the instance, 2 its number and when one of them was heard, or '' if that stands there already
-- Says  {} | {1 if calls were queued and are not over, the instances that wait}
if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
-- Nearly always.
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) == 0 then
    return {}
end
local t = redis.call('TIME')
local said = redis.call('ZRANGE', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000), '+inf', 'BYSCORE')
table.insert(said, 1, redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 and 1 or 0)
return said
