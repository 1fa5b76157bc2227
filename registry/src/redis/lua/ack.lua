-- Trims what a client has acknowledged.
-- KEYS  1 log, 2 logged
-- ARGV  1 number up to which it has everything, 2 the next one
-- Says  {'acked'} | {'beyond', the last number that was given}: then nothing was trimmed
local tail = redis.call('HGET', KEYS[2], 't') or '0'
if tonumber(ARGV[1]) > tonumber(tail) then
    return { 'beyond', tail }
end
if redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2]) > 0 then
    redis.call('HSET', KEYS[2], 'a', ARGV[1])
end
return { 'acked' }
