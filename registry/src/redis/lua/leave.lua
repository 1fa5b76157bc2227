-- Leaves a durable delivery for a group without sockets. Who is there stands in the same slot, so that nobody can come
-- in between and miss it.
-- The mail is a stream of (m text, k key, u until, c bytes before it) under its position. Mailed has t, c, b and x as a log
-- has them, and by: the socket that is taking it.
-- KEYS  1 mail, 2 mailed, 3 sockets of the group that may be resumed, 4 instances that hold members, 5 where it stands
--       for a while that this delivery was left
-- ARGV  1 text, 2 now in microseconds and 3 until when it is kept, both by Redis' clock as the caller estimates it,
--       4 what it counts for, 5 all of them at most, 6 ms it is known when asked again, 7 ms the mail stays and 8 until
--       when, 9 its key
-- Says  'left' | 'somebody' | 'full'
if redis.call('EXISTS', KEYS[5]) == 1 then
    -- Written again, so that whoever waits for replicas now waits for what was written then.
    redis.call('PEXPIRE', KEYS[5], ARGV[6])
    return 'left'
end
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then
    return 'somebody'
end
local held = redis.call('HMGET', KEYS[2], 't', 'c', 'b', 'x')
local now, seq = tonumber(ARGV[2]), ARGV[2]
if now <= tonumber(held[1] or '0') then
    seq = string.format('%.0f', tonumber(held[1]) + 1)
end
local before, base, is_fresh = 0, 0, tonumber(held[4] or '0') * 1000 <= now
if not is_fresh then
    before, base = tonumber(held[2]), tonumber(held[3])
end
local bytes = before + tonumber(ARGV[4])
if bytes - base > tonumber(ARGV[5]) then
    -- What was trimmed since is looked up only now. Each entry is {id, {.., until, c, bytes before it}}.
    local some = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
    while true do
        base = some[1] and tonumber(some[1][2][8]) or before
        if not some[1] or bytes - base <= tonumber(ARGV[5]) or tonumber(some[1][2][6]) * 1000 > now then
            break
        end
        -- What is over goes first.
        some = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 50)
        local nth = 1
        while some[nth + 1] and tonumber(some[nth + 1][2][6]) * 1000 <= now do
            nth = nth + 1
        end
        local last = string.match(some[nth][1], '^%d+')
        redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', tonumber(last) + 1))
        some = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
    end
    if bytes - base > tonumber(ARGV[5]) then
        return 'full'
    end
end
local c, b = string.format('%d', bytes), string.format('%d', base)
redis.call('XADD', KEYS[1], seq .. '-0', 'm', ARGV[1], 'k', ARGV[9], 'u', ARGV[3], 'c', is_fresh and '0' or held[2])
redis.call('SET', KEYS[5], '1', 'PX', ARGV[6])
redis.call('HSET', KEYS[2], 't', seq, 'c', c, 'b', b)
if tonumber(ARGV[3]) > tonumber(held[4] or '0') then
    -- Some minutes more than this one wants, so that it is not done for each that lasts longer than the one before.
    redis.call('PEXPIRE', KEYS[1], ARGV[7])
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
    redis.call('HSET', KEYS[2], 'x', ARGV[8])
end
return 'left'
