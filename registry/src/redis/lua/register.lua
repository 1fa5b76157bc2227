-- Claims a socket for an instance: its row, its entry with the owner, its place in the index.
-- A later attempt wins, whatever order the claims arrive in; what has ended stays ended, but for a later attempt,
-- which was let in before. Of one connection the later life of its instance wins: a claim under a mark that was
-- fenced meanwhile changes nothing, and is 'ok'.
-- KEYS  1 row, 2 owned by the claimant, 3 live, 4 ended; in the same slot lie the previous owner's entries, whose key
--       differs from the second in the mark alone, and what it left behind
-- ARGV  1 id, 2 session, 3 attempt, 4 acceptedAt, 5 h32, 6 for how many ms it is told what was left behind,
--       7.. the row's fields, name and value in turn
-- Says  {'ok', bad} | {'taken', bad, owner, session} | {'superseded', 'later' or 'ended'};
--       bad names a key of a foreign type that was left alone, or is ''
local id, session = ARGV[1], ARGV[2]
local was = redis.call('HMGET', KEYS[1], 'session', 'attempt', 'accepted', 'confirmed', 'state', 'owner')
local n = tonumber(ARGV[3])
local over = was[5] == 'closed' or was[5] == 'lost'
if over and n <= (tonumber(was[2]) or 0) then
    return { 'superseded', 'ended' }
end
if was[1] == session then
    -- Only one process has a session, and its marks are made in order. Byte by byte: < asks the server's locale.
    local ours, theirs = string.sub(KEYS[2], -22), string.sub(was[6] or '', -22)
    if ours ~= theirs and #theirs == 22 then
        for i = 1, 22 do
            local byte, other = string.byte(ours, i), string.byte(theirs, i)
            if byte < other then
                return { 'ok', '' }
            elseif byte > other then
                break
            end
        end
    end
end
local taken = was[1] and was[1] ~= session and not over
local left
if taken then
    local accepted = tonumber(ARGV[4])
    local held, held_at = tonumber(was[2]) or 0, tonumber(was[3]) or 0
    if (tonumber(was[4]) or 0) >= n or n < held or (n == held and accepted <= held_at) then
        return { 'superseded', 'later' }
    end
    left = redis.call('HMGET', KEYS[1], 'user', 'store', 'rooms', 'client', 'address')
end
if was[1] then
    redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
if was[4] and tonumber(was[4]) > (tonumber(redis.call('HGET', KEYS[1], 'confirmed')) or -1) then
    redis.call('HSET', KEYS[1], 'confirmed', was[4])
end

local bad = add_entry(KEYS[2], id, session, ARGV[5])
if taken then
    succeed(KEYS[2], id, was[6], was[1], left, ARGV[6])
end
local listed = redis.pcall('ZADD', KEYS[3], 0, id)
if type(listed) == 'table' then
    bad = KEYS[3]
end
if was[5] == 'away' or over then
    redis.pcall('ZREM', KEYS[4], id)
end
if taken then
    return { 'taken', bad, was[6] or '', was[1] }
end
return { 'ok', bad }
