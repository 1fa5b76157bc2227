-- Logs a durable delivery for a socket that may be resumed. Its row lies in the same slot, so that the answer says who
-- is to be told, or why nothing was logged, in the same step. Asked again with the same key it says the same again.
-- KEYS  1 row, 2 log, 3 logged, 4 where it stands for a while that this delivery was logged here
-- ARGV  1 text, 2 ms it is kept, 3 entries at most, 4 bytes at most, 5 ms it is known when asked again, 6 ms the end of
--       a log is remembered; for what was left for a group: 7 name of the field that says up to where its mail was
--       logged here, 8 position in it
-- Says  {'logged', seq, prev, owner, session, 'live' or 'away'} | {'plain', owner, session} | {'full'} | {'over'}
--       | {'none'} if there is no row | {'again'} if that position was logged before, whatever became of it
local row = redis.call('HMGET', KEYS[1], 'state', 'window', 'owner', 'session', 'endedAt')
local held = redis.call('HMGET', KEYS[3], 't', 'c', 'b', 'x', ARGV[7] or 't')
if ARGV[8] and held[5] and tonumber(held[5]) >= tonumber(ARGV[8]) then
    return { 'again' }
end
local state, window = row[1], row[2]
if not state then
    return { 'none' }
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if state == 'away' then
    if (tonumber(row[5]) or 0) + (tonumber(window) or 0) * 1000 <= now then
        return { 'over' }
    end
elseif state ~= 'live' then
    return { 'over' }
elseif not window then
    return { 'plain', row[3], row[4] }
end

-- A number that a lost server gave must not be given again, or what follows it would be taken for its successor: so
-- they are microseconds, which nobody's clock hits twice.
local tail, seq = tonumber(held[1]) or 0, time[1] * 1000000 + time[2]
if seq <= tail then
    seq = tail + 1
end
-- As text: Redis writes numbers as %.17g, which takes longer than all of this.
seq = string.format('%.0f', seq)
local prev = held[1] or '0'
if not redis.call('SET', KEYS[4], seq .. ' ' .. prev, 'NX', 'PX', ARGV[5]) then
    local was = redis.call('GET', KEYS[4])
    -- Written again, so that whoever waits for replicas now waits for what was written then.
    redis.call('SET', KEYS[4], was, 'PX', ARGV[5])
    seq, prev = string.match(was, '^(%d+) (%d+)$')
    return { 'logged', seq, prev, row[3], row[4], state }
end

local length, count = #ARGV[1], redis.call('XLEN', KEYS[2])
local bytes, base = tonumber(held[2]) or 0, tonumber(held[3]) or 0
if count == 0 then
    bytes, base = 0, 0
end
local function has_room()
    return count < tonumber(ARGV[3]) and bytes - base + length <= tonumber(ARGV[4])
end
if not has_room() then
    -- What is over goes first. Each entry is {id, {m, text, p, prev, u, until, c, bytes}}.
    local over
    repeat
        local some, nth = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 50), 0
        while some[nth + 1] and tonumber(some[nth + 1][2][6]) <= now do
            nth = nth + 1
        end
        over = some[nth]
        if over then
            local last = string.match(over[1], '^%d+')
            redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', tonumber(last) + 1))
            redis.call('HSET', KEYS[3], 'b', over[2][8], 'a', last)
            count, base = count - nth, tonumber(over[2][8])
        end
    until not over or nth < #some
end
if not has_room() then
    redis.call('DEL', KEYS[4])
    return { 'full' }
end

bytes = bytes + length
local lasts = now + tonumber(ARGV[2])
local c, u = string.format('%d', bytes), string.format('%.0f', lasts)
local added = redis.pcall('XADD', KEYS[2], seq .. '-0', 'm', ARGV[1], 'p', prev, 'u', u, 'c', c)
if added.err then
    redis.call('DEL', KEYS[4])
    return added
end
redis.call('HSET', KEYS[3], 't', seq, 'c', c, 'b', string.format('%d', base), ARGV[7] or 't', ARGV[8] or seq)
if lasts > (tonumber(held[4]) or 0) then
    -- Some minutes more, so that this is not done for each one that lasts longer than the one before.
    local more = 600000
    redis.call('PEXPIRE', KEYS[2], string.format('%.0f', tonumber(ARGV[2]) + more))
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
    redis.call('HSET', KEYS[3], 'x', string.format('%.0f', lasts + more))
end
return { 'logged', seq, prev, row[3], row[4], state }
