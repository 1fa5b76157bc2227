-- Renews a lease, or makes it anew, and rings the own bell, so that an owner who does not hear it knows.
-- The ring is the last number alone, with ! behind it when the count began anew.
-- KEYS  1 lease, 2 tomb, 3 mail, 4 bell
-- ARGV  1 PUBLISH or SPUBLISH, 2 ms the lease holds, 3 number up to which the mail was read, 4 state,
--       5 sockets, 6 ms the mail holds, 7 hash of the settings in force, 8.. fields that never change, name and value
--       in turn
-- Says  {'fenced', now} | {'new' or 'renewed', now, number of the last message, listeners, since when the lease
--       is held}: who sees the last change has lost a lease, even if the answer that said 'new' was lost
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
if redis.call('EXISTS', KEYS[2]) == 1 then
    return { 'fenced', now }
end
local lease = redis.call('HMGET', KEYS[1], 'n', 'since')
local last, since = lease[1], lease[2] or ''
local word, mark = 'renewed', ''
if last then
    -- A server without memory still lets a lease live.
    redis.pcall('HSET', KEYS[1], 'state', ARGV[4], 'sockets', ARGV[5], 'beat', now, 'configuration', ARGV[7])
    redis.pcall('XTRIM', KEYS[3], 'MINID', '~', ARGV[3])
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
else
    -- Numbers grow from one lease to the next, so that an old one is never taken for a new one.
    word, mark, last, since = 'new', '!', now, now
    redis.call('DEL', KEYS[3])
    redis.call('HSET', KEYS[1], 'n', last, 'since', since, 'state', ARGV[4], 'sockets', ARGV[5], 'beat', now,
        'configuration', ARGV[7], unpack(ARGV, 8))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { word, now, last, redis.call(ARGV[1], KEYS[4], last .. '\n' .. mark), since }
