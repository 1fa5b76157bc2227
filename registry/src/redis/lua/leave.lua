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
local c, b = '0', '0'
if tonumber(held[4] or '0') * 1000 > now then
    c, b = held[2], held[3]
end
local bytes, gone, more, most = tonumber(c), tonumber(b), tonumber(ARGV[4]), tonumber(ARGV[5])
if bytes + more - gone > most then
    gone = make_room(KEYS[1], now / 1000, bytes, gone, more, most)
    b = string.format('%d', gone)
    if bytes + more - gone > most then
        return 'full'
    end
end
redis.call('XADD', KEYS[1], seq .. '-0', 'm', ARGV[1], 'k', ARGV[9], 'u', ARGV[3], 'c', c)
redis.call('SET', KEYS[5], '1', 'PX', ARGV[6])
redis.call('HSET', KEYS[2], 't', seq, 'c', string.format('%d', bytes + more), 'b', b)
if tonumber(ARGV[3]) > tonumber(held[4] or '0') then
    -- Some minutes more than this one wants, so that it is not done for each that lasts longer than the one before.
    redis.call('PEXPIRE', KEYS[1], ARGV[7])
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
    redis.call('HSET', KEYS[2], 'x', ARGV[8])
end
return 'left'
