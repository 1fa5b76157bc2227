-- Logs a durable delivery for a socket that may be resumed. Its row lies in the same slot, so that the answer says who
-- is to be told, or why nothing was logged, in the same step. Asked again with the same key it says the same again.
-- The log is a stream of (m text, p number before it, u until, c bytes before it) under its number. Logged has t the last
-- number that was given, c bytes so far as they count, b how many of them are trimmed for certain, a number up to which
-- was trimmed, x when the log goes by itself; whoever empties the log leaves its key, which that time is of.
-- KEYS  1 row, 2 log, 3 logged, 4 where it stands for a while that this delivery was logged here
-- ARGV  1 text, 2 now in microseconds and 3 until when it is kept, both by Redis' clock as the caller estimates it: asking
--       for it here, and writing numbers as text, would cost a tenth of the script, 4 what it counts for, 5 all of them
--       at most, 6 ms it is known when asked again, 7 ms the log stays and 8 until when, 9 ms the end of a log is remembered; for
--       what was left for a group: 10 name of the field that says up to where its mail was logged here, 11 position in it
-- Says  {'logged', seq, prev, owner, session, 'live' or 'away'} | {'plain', owner, session} | {'full'} | {'over'}
--       | {'none'} if there is no row | {'again'} if that position was logged before, whatever became of it
local row = redis.call('HMGET', KEYS[1], 'state', 'window', 'owner', 'session', 'endedAt')
local held = redis.call('HMGET', KEYS[3], 't', 'c', 'b', 'x', ARGV[10])
if held[5] and tonumber(held[5]) >= tonumber(ARGV[11]) then
    return { 'again' }
end
local state, window = row[1], row[2]
if not state then
    return { 'none' }
end
local now = tonumber(ARGV[2])
if state == 'away' then
    if ((tonumber(row[5]) or 0) + (tonumber(window) or 0) * 1000) * 1000 <= now then
        return { 'over' }
    end
elseif state ~= 'live' then
    return { 'over' }
elseif not window then
    return { 'plain', row[3], row[4] }
end

-- A number that a lost server gave must not be given again, or what follows it would be taken for its successor: so
-- they are microseconds, which are hardly hit twice.
local prev, seq = held[1] or '0', ARGV[2]
if now <= tonumber(prev) then
    seq = string.format('%.0f', tonumber(prev) + 1)
end
if not redis.call('SET', KEYS[4], seq .. ' ' .. prev, 'NX', 'PX', ARGV[6]) then
    local was = redis.call('GET', KEYS[4])
    -- Written again, so that whoever waits for replicas now waits for what was written then.
    redis.call('SET', KEYS[4], was, 'PX', ARGV[6])
    seq, prev = string.match(was, '^(%d+) (%d+)$')
    return { 'logged', seq, prev, row[3], row[4], state }
end

-- Each counts for as much as its share of the room at least, so that nobody has to count them.
local before, base, is_fresh = 0, 0, tonumber(held[4] or '0') * 1000 <= now
if not is_fresh then
    before, base = tonumber(held[2]), tonumber(held[3])
end
local bytes = before + tonumber(ARGV[4])
if bytes - base > tonumber(ARGV[5]) then
    -- What was trimmed since is looked up only now. Each entry is {id, {.., until, c, bytes before it}}.
    local some = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
    while true do
        base = some[1] and tonumber(some[1][2][8]) or before
        if not some[1] or bytes - base <= tonumber(ARGV[5]) or tonumber(some[1][2][6]) * 1000 > now then
            break
        end
        -- What is over goes first.
        some = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 50)
        local nth = 1
        while some[nth + 1] and tonumber(some[nth + 1][2][6]) * 1000 <= now do
            nth = nth + 1
        end
        local last = string.match(some[nth][1], '^%d+')
        redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', tonumber(last) + 1))
        redis.call('HSET', KEYS[3], 'a', last)
        some = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
    end
    if not is_fresh then
        redis.call('HSET', KEYS[3], 'b', string.format('%d', base))
    end
    if bytes - base > tonumber(ARGV[5]) then
        redis.call('DEL', KEYS[4])
        return { 'full' }
    end
end

-- As text: Redis writes numbers as %.17g, which takes longer than all of this.
local c = string.format('%d', bytes)
local added = redis.pcall('XADD', KEYS[2], seq .. '-0', 'm', ARGV[1], 'p', prev, 'u', ARGV[3], 'c', is_fresh and '0' or held[2])
if added.err then
    redis.call('DEL', KEYS[4])
    return added
end
redis.call('HSET', KEYS[3], 't', seq, 'c', c)
if is_fresh then
    redis.call('HSET', KEYS[3], 'b', '0')
end
if ARGV[11] then
    redis.call('HSET', KEYS[3], ARGV[10], ARGV[11])
end
if tonumber(ARGV[3]) > tonumber(held[4] or '0') then
    -- Some minutes more than this one wants, so that it is not done for each that lasts longer than the one before.
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
    redis.call('PEXPIRE', KEYS[3], ARGV[9])
    redis.call('HSET', KEYS[3], 'x', ARGV[8])
end
return { 'logged', seq, prev, row[3], row[4], state }
