-- Ends a connection, or takes an entry away that is not its owner's any more. Each part only where the
-- session is the one that is named: a delete that comes late must not meet a later connection.
-- KEYS  1 row, 2 owned by the one who held it, 3 live, 4 ended, 5 the log of events, if somebody wants to be told
-- ARGV  1 id, 2 session, 3 closed | away: closed if it may not come back | forgotten | dropped: away, or else forgotten;
--       4 for how many ms the row of an ended socket stays, and for a minute more after the time of one that is away,
--       in which somebody ends it; 5 now, 6.. fields, name and value in turn. Now is Redis' clock as the caller
--       estimates it: it only dates the verdict and says when an away socket is due, and asking for it here would cost
--       a tenth of the script. With a log the last three are how many events it holds, for how many ms it stays, and
--       the event, which is logged if the row is closed by this
-- Says  1 if the row was ended, 2 if another connection has it, else 0; if it was logged {1, the event's id in the log,
--       how many older ones went for it}
local id, session, to = ARGV[1], ARGV[2], ARGV[3]
local done, last = 0, KEYS[5] and #ARGV - 3 or #ARGV
local was = redis.call('HMGET', KEYS[1], 'session', 'state', 'window')
if to == 'dropped' then
    to = was[3] and 'away' or 'forgotten'
elseif to == 'away' and not was[3] then
    to = 'closed'
end
if was[1] and was[1] ~= session and (was[2] == 'live' or was[2] == 'away') then
    done = 2
end
if was[1] == session and (was[2] == 'live' or (was[2] == 'away' and to ~= 'away')) then
    if to == 'forgotten' then
        redis.call('DEL', KEYS[1])
    elseif to == 'away' then
        local window = (tonumber(was[3]) or 0) * 1000
        local due = string.format('%.0f', ARGV[5] + window)
        redis.call('HSET', KEYS[1], 'state', to, 'endedAt', ARGV[5], 'due', due, unpack(ARGV, 6, last))
        redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[4] + window + 60000))
        redis.pcall('ZADD', KEYS[4], due, id)
    else
        if was[2] == 'away' then
            redis.call('HDEL', KEYS[1], 'due', 'reason', 'code')
        end
        redis.call('HSET', KEYS[1], 'state', to, 'endedAt', ARGV[5], unpack(ARGV, 6, last))
        redis.call('PEXPIRE', KEYS[1], ARGV[4])
    end
    redis.pcall('ZREM', KEYS[3], id)
    if to ~= 'away' and was[2] == 'away' then
        redis.pcall('ZREM', KEYS[4], id)
    end
    done = 1
end
drop_entry(KEYS[2], id, session)
if KEYS[5] and done == 1 and to == 'closed' then
    return { done, log_event(KEYS[5], ARGV[last + 1], ARGV[last + 2], ARGV[last + 3]) }
end
return done
