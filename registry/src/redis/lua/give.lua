-- Notes to which socket a queued call is about to be written. Who has it stands with the group, in another slot; so
-- whoever stood still since it took it is refused, since somebody else may have it by now.
-- KEYS  1 its record
-- ARGV  1 the instance, 2 the socket, 3 until when nobody else has it
-- Says  {} if it is over | {'late'} | {text, attempt, when it was queued, patience}
local was = redis.call('HMGET', KEYS[1], 'state', 'until', 'attempt', 'text', 'queuedAt', 'patience', 'ttl')
if was[1] ~= 'waits' and was[1] ~= 'given' then
    return {}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now > tonumber(was[2]) then
    return {}
end
if now > tonumber(ARGV[3]) then
    return { 'late' }
end
local attempt = string.format('%d', was[3] + 1)
-- Whoever takes it may die, and then it waits for the next as long as it waited for the first.
redis.call('HSET', KEYS[1], 'state', 'given', 'attempt', attempt, 'owner', ARGV[1], 'socket', ARGV[2],
    'until', string.format('%.0f', now + was[6] + was[7]))
return { was[4], attempt, was[5], was[6] }
