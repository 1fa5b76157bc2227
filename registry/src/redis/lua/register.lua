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

local bad = ''
local entry = redis.pcall('HMGET', KEYS[2], id, '#n', '#d')
if entry.err then
    bad = KEYS[2]
else
    local count, digest = tonumber(entry[2]) or 0, tonumber(entry[3]) or 0
    if entry[1] then
        digest = bit.bxor(digest, tonumber(string.match(entry[1], '|(%d+)$')) or 0)
    else
        count = count + 1
    end
    digest = bit.bxor(digest, tonumber(ARGV[5]))
    -- As text: Redis writes numbers as %.17g, which takes longer than all of this.
    count, digest = string.format('%d', count), string.format('%d', digest)
    redis.call('HSET', KEYS[2], id, session .. '|' .. ARGV[5], '#n', count, '#d', digest)
end
if taken then
    -- The previous owner's entry goes in the same step, so that its digest differs whatever becomes of this
    -- answer: else an owner that nobody told would hold its connection for ever. Its key has our tag.
    local mark = string.match(was[6] or '', '([^.]*)$')
    local theirs = string.sub(KEYS[2], 1, -1 - #mark) .. mark
    local held = {}
    if #mark == 22 and theirs ~= KEYS[2] then
        held = redis.pcall('HMGET', theirs, id, '#n', '#d')
    end
    if not held.err and held[1] and string.sub(held[1], 1, #was[1] + 1) == was[1] .. '|' then
        local count = (tonumber(held[2]) or 1) - 1
        if count <= 0 then
            redis.call('DEL', theirs)
        else
            local digest = bit.bxor(tonumber(held[3]) or 0, tonumber(string.match(held[1], '|(%d+)$')) or 0)
            redis.call('HDEL', theirs, id)
            redis.call('HSET', theirs, '#n', count, '#d', digest)
        end
        -- If it is dead, whoever cleans up after it does not meet this socket any more, and must still know in which
        -- groups it was counted.
        local note = string.sub(theirs, 1, -1 - #'owned:' - #mark) .. 'left:' .. mark
        for i = 1, 5 do
            left[i] = left[i] or ''
        end
        local noted = redis.pcall('HSET', note, id, cjson.encode({ id, was[1], unpack(left) }))
        if type(noted) == 'number' then
            redis.call('PEXPIRE', note, ARGV[6])
        end
    end
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
