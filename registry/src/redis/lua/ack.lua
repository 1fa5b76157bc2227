-- Trims what a client has acknowledged.
-- KEYS  1 log, 2 logged
-- ARGV  1 number up to which it has everything, 2 the next one
-- Says  {'acked'} | {'beyond', the last number that was given}: then nothing was trimmed
local held = redis.call('HMGET', KEYS[2], 't', 'c')
local tail = held[1] or '0'
if tonumber(ARGV[1]) > tonumber(tail) then
    return { 'beyond', tail }
end
local base = held[2]
if ARGV[1] ~= tail then
    -- Its payload is copied, too; who keeps up acknowledges the last, and that is not looked at.
    local last = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', 1)[1]
    if not last then
        return { 'acked' }
    end
    base = last[2][8]
end
if redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2]) > 0 then
    redis.call('HSET', KEYS[2], 'b', base, 'a', ARGV[1])
end
return { 'acked' }
