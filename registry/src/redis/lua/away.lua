-- Ends a socket that is away: its time is over, or somebody has decided that it does not come back. Says so again
-- when asked again, until the caller has told it and takes it off the list.
-- KEYS  1 row, 2 ended
-- ARGV  1 id, 2 for how many ms the row stays, 3 'due' if only that time ends it, or '',
--       4.. fields, name and value in turn
-- Says  {'ended', the row's fields, name and value in turn} | {'waits'} if it is away and not due | {'gone'} if there is
--       nothing to be told
local id = ARGV[1]
local was = redis.call('HMGET', KEYS[1], 'state', 'due')
if was[1] == 'away' then
    if ARGV[3] == 'due' then
        local t = redis.call('TIME')
        if (tonumber(was[2]) or 0) > t[1] * 1000 + math.floor(t[2] / 1000) then
            return { 'waits' }
        end
    end
    redis.call('HSET', KEYS[1], 'state', 'closed', unpack(ARGV, 4))
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif was[1] ~= 'closed' or not redis.call('ZSCORE', KEYS[2], id) then
    return { 'gone' }
end
return { 'ended', unpack(redis.call('HGETALL', KEYS[1])) }
