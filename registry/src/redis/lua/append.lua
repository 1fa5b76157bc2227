-- Logs durable deliveries for sockets that may be resumed. Their rows lie in the same slot, so that the answer says who is
-- to be told, or why nothing was logged, in the same step. A delivery that may have been logged when it was asked for
-- before comes alone, and says since when that may be: then it is looked for first.
-- The log is a stream of (m text, p number before it, u until, c bytes before it, k key) under its number. Logged has t the
-- last number that was given, c bytes so far as they count, b how many of them are trimmed for certain, a number up to which
-- was trimmed, x when the log goes by itself; whoever empties the log leaves its key, which that time is of.
-- A number that a lost server gave must not be given again, or what follows it would be taken for its successor: so they
-- are microseconds, which are hardly hit twice.
-- KEYS  for each socket: row, log, logged
-- ARGV  1 bytes at most, 2 ms the end of a log is remembered, 3 ms a log stays longer than what stays longest in it;
--       then for each socket how many deliveries, and for each of these: text, now in microseconds and until when it is
--       kept in ms, both by Redis' clock as the caller estimates it (asking for it here, and writing numbers as text, would
--       cost a tenth of the script), what it counts for, key; and behind all of them, for one that comes alone: since when
--       it may have been logged; or the name of the field that says up to where a group's mail was logged here, and the
--       position in it of what was left there
-- Says  for each socket: {'logged', owner, session, 'live' or 'away', prev, and for each delivery seq or 'full'}
--       | {'plain', owner, session} | {'over'} | {'none'} if there is no row | {'refused', why}
--       | {'again'} if that position was logged before, whatever became of it | {'perhaps'} if it may have been logged and
--       trimmed since
local most = tonumber(ARGV[1])
local since, field, position
if #KEYS == 3 then
    local behind = 5 + 5 * tonumber(ARGV[4])
    since, position = ARGV[behind], ARGV[behind + 1]
    if position then
        since, field = nil, since
    end
end

-- Of two numbers as text: to read one of so many digits takes a fiftieth of the script.
local function is_more(one, other)
    return #one > #other or (#one == #other and one > other)
end

-- The entry of a key since a number, if it is there: its number, and the one before it.
local function find(log, key)
    for _, entry in ipairs(redis.call('XRANGE', log, since, '+')) do
        if entry[2][10] == key then
            return string.match(entry[1], '^%d+'), entry[2][4]
        end
    end
end

local function append(row_key, log, logged, at, count)
    local row = redis.call('HMGET', row_key, 'state', 'window', 'owner', 'session')
    local held = redis.call('HMGET', logged, 't', 'c', 'b', 'x')
    if position and (tonumber(redis.call('HGET', logged, field)) or -1) >= tonumber(position) then
        return { 'again' }
    end
    local state, window = row[1], row[2]
    if not state then
        return { 'none' }
    end
    local now = string.sub(ARGV[at + 1], 1, -4)
    if state == 'away' then
        if not is_more(redis.call('HGET', row_key, 'due') or '', now) then
            return { 'over' }
        end
    elseif state ~= 'live' then
        return { 'over' }
    elseif not window then
        return { 'plain', row[3], row[4] }
    end
    local prev = held[1] or '0'
    if since and not is_more(since, prev) then
        local seq, before = find(log, ARGV[at + 4])
        if seq then
            -- Written again, so that whoever waits for replicas now waits for what was written then.
            redis.call('HSET', logged, 't', prev)
            return { 'logged', row[3], row[4], state, before, seq }
        elseif not is_more(since, redis.call('HGET', logged, 'a') or '0') then
            return { 'perhaps' }
        end
    end

    local stays, c, b = held[4] or '0', '0', '0'
    if is_more(stays, now) then
        c, b = held[2], held[3]
    end
    local bytes, gone, latest, up_to = tonumber(c), tonumber(b), '', nil
    local said = { 'logged', row[3], row[4], state, prev }
    for nth = 6, 5 + count do
        local more = tonumber(ARGV[at + 3])
        if bytes + more - gone > most then
            gone, up_to = make_room(log, tonumber(now), bytes, gone, more, most)
            b = string.format('%d', gone)
            if up_to then
                redis.call('HSET', logged, 'a', up_to)
            end
        end
        if bytes + more - gone > most then
            said[nth] = 'full'
        else
            local seq, ends = ARGV[at + 1], ARGV[at + 2]
            if not is_more(seq, prev) then
                seq = string.format('%.0f', tonumber(prev) + 1)
            end
            redis.call('XADD', log, seq .. '-0', 'm', ARGV[at], 'p', prev, 'u', ends, 'c', c, 'k', ARGV[at + 4])
            prev, bytes = seq, bytes + more
            -- As text: Redis writes numbers as %.17g, which takes longer than all of this.
            c = string.format('%d', bytes)
            if is_more(ends, latest) then
                latest = ends
            end
            said[nth] = seq
        end
        at = at + 5
    end
    if latest == '' then
        return said
    elseif b == held[3] then
        redis.call('HSET', logged, 't', prev, 'c', c)
    else
        redis.call('HSET', logged, 't', prev, 'c', c, 'b', b)
    end
    if position then
        redis.call('HSET', logged, field, position)
    end
    if is_more(latest, stays) then
        -- Some minutes more than this one wants, so that it is not done for each that lasts longer than the one before.
        local longer = tonumber(latest) + tonumber(ARGV[3])
        redis.call('HSET', logged, 'x', string.format('%.0f', longer))
        redis.call('PEXPIRE', log, string.format('%.0f', longer - tonumber(now)))
        redis.call('PEXPIRE', logged, ARGV[2])
    end
    return said
end

local said, at = {}, 4
for nth = 1, #KEYS, 3 do
    local count = tonumber(ARGV[at])
    -- A key of a foreign type is its socket's trouble, and nobody else's.
    local done, what = pcall(append, KEYS[nth], KEYS[nth + 1], KEYS[nth + 2], at + 1, count)
    said[#said + 1] = done and what or { 'refused', type(what) == 'table' and what.err or what }
    at = at + 1 + 5 * count
end
return said
