-- Whether an instance lives and hears its bell.
-- KEYS  1 lease, 2 tomb, 3 bell
-- ARGV  1 NUMSUB or SHARDNUMSUB
-- Says  {state or '', beat or '', now, listeners, 1 if it was declared dead}
local t = redis.call('TIME')
local lease = redis.call('HMGET', KEYS[1], 'state', 'beat')
local listeners = redis.call('PUBSUB', ARGV[1], KEYS[3])
return {
    lease[1] or '',
    lease[2] or '',
    string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)),
    listeners[2],
    redis.call('EXISTS', KEYS[2]),
}
