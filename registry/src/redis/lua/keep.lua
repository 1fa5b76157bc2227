-- Keeps a call that is queued: what is asked, and what becomes of it.
-- KEYS  1 its record
-- ARGV  1 ms the record stays, 2 ms it waits to be taken, 3.. fields, name and value in turn
-- Says  1
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'state', 'waits', 'attempt', '0', 'queuedAt', string.format('%.0f', now),
    'until', string.format('%.0f', now + ARGV[2]), unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
