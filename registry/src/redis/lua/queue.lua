-- Puts a call behind the others that wait for somebody of a group.
-- KEYS  1 calls that wait, 2 calls that were taken, 3 instances of the group
-- ARGV  1 the call and its patience, 2 ms it waits, 3 calls at most, 4 ms the lists stay
-- Says  {'full'} | {'ok', instance…}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[1]) + redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then
    return { 'full' }
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local said = { 'ok' }
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
    said[#said + 1] = held[i]
end
return said
