-- Says what came of a queued call. The first word stands.
-- KEYS  1 its record
-- ARGV  1 the attempt, or '' if its time is over, 2 the outcome, 3 ms it is kept
-- Says  1, or 0 if it is over already, or somebody else's by now
local was = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'until')
if was[1] ~= 'waits' and was[1] ~= 'given' then
    return 0
end
if ARGV[1] == '' then
    local t = redis.call('TIME')
    if t[1] * 1000 + math.floor(t[2] / 1000) <= tonumber(was[3]) then
        return 0
    end
elseif was[1] ~= 'given' or was[2] ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'state', 'done', 'outcome', ARGV[2])
redis.call('HDEL', KEYS[1], 'text')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
