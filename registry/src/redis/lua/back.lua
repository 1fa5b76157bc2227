-- Notes that whoever was given a queued call has it no more, without an answer.
-- KEYS  1 its record
-- ARGV  1 the attempt, 2 whether it was delivered: true, false or unknown
-- Says  1, or 0 if it is over, or somebody else's by now
local was = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'ttl', 'delivered')
if was[1] ~= 'given' or was[2] ~= ARGV[1] then
    return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'state', 'waits', 'until', string.format('%.0f', now + was[3]))
if ARGV[2] == 'false' then
    -- Nobody has seen it, so it does not count.
    redis.call('HSET', KEYS[1], 'attempt', string.format('%d', was[2] - 1))
elseif was[4] ~= 'true' then
    redis.call('HSET', KEYS[1], 'delivered', ARGV[2])
end
return 1
