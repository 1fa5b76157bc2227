-- Puts calls back that an instance has taken, for the next who comes.
-- KEYS  1 calls that wait, 2 calls that were taken, 3 instances of the group
-- ARGV  1 the instance that has them, 2 ms they wait, 3 ms the lists stay, 4 the call and its patience, or '' for all
-- Says  the instances that hold members
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local given
if ARGV[4] == '' then
    given = redis.call('HGETALL', KEYS[2])
else
    given = { ARGV[4], redis.call('HGET', KEYS[2], ARGV[4]) or '' }
end
local back = 0
for i = 1, #given, 2 do
    local owner = string.match(given[i + 1], '^(.*)|%d+$')
    if owner == ARGV[1] then
        redis.call('HDEL', KEYS[2], given[i])
        redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), given[i])
        back = back + 1
    end
end
if back == 0 then
    return {}
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local said = {}
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
    said[#said + 1] = held[i]
end
return said
