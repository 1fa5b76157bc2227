-- Ends a socket that is away: its time is over, or somebody has decided that it does not come back. Says so again
-- when asked again, until the caller has told it and takes it off the list.
-- KEYS  1 row, 2 ended
-- ARGV  1 id, 2 for how many ms the row stays, 3 'due' if only that time ends it, 'now', or 'told' if it was told and
--       has only to go off the list, where it may be away again by now; 4.. how it ended, name and value in turn, if not
--       as its connection did
-- Says  {'ended', the row's fields, name and value in turn} | {'waits'} if it is away and not due | {'gone'} if there is
--       nothing to be told
local id = ARGV[1]
local was = redis.call('HMGET', KEYS[1], 'state', 'due')
local listed = redis.pcall('ZSCORE', KEYS[2], id)
if type(listed) == 'table' then
    listed = false
end
if ARGV[3] == 'told' then
    if listed and was[1] ~= 'away' then
        redis.call('ZREM', KEYS[2], id)
    end
    return { 'gone' }
end
if was[1] == 'away' then
    if ARGV[3] == 'due' then
        local t = redis.call('TIME')
        if (tonumber(was[2]) or 0) > t[1] * 1000 + math.floor(t[2] / 1000) then
            return { 'waits' }
        end
    end
    redis.call('HDEL', KEYS[1], 'due', unpack(#ARGV > 3 and { 'reason', 'code' } or {}))
    redis.call('HSET', KEYS[1], 'state', 'closed', unpack(ARGV, 4))
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif was[1] ~= 'closed' or not listed then
    if listed then
        redis.call('ZREM', KEYS[2], id)
    end
    return { 'gone' }
end
return { 'ended', unpack(redis.call('HGETALL', KEYS[1])) }
