-- Notes that an instance is about to drain, unless nobody else would serve then. The leases lie elsewhere, so whoever
-- asks has looked at them; here it is decided, one after the other.
-- KEYS  1 who is about to drain, by the time until which that is believed
-- ARGV  1 the incarnation, 2 ms that it is believed of it, 3 '1' if it may be the last, 4.. the others that serve
-- Says  {1} if it is noted, {0} if it is the last
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local stay = 0
for nth = 4, #ARGV do
    if not redis.call('ZSCORE', KEYS[1], ARGV[nth]) then
        stay = stay + 1
    end
end
if stay == 0 and ARGV[3] ~= '1' then
    return { 0 }
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 1 }
