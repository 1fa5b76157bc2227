-- The entries of an owner in a partition: session|h32 of each of its sockets, #n how many they are, #d the digest of all.

-- Numbers go as text: Redis writes them as %.17g, which takes longer than all of this.

-- Says the key if it is of a foreign type, and was left alone, else ''.
local function add_entry(owned, id, session, h32)
    local entry = redis.pcall('HMGET', owned, id, '#n', '#d')
    if entry.err then
        return owned
    end
    local count, digest = tonumber(entry[2]) or 0, tonumber(entry[3]) or 0
    if entry[1] then
        digest = bit.bxor(digest, tonumber(string.match(entry[1], '|(%d+)$')) or 0)
    else
        count = count + 1
    end
    redis.call('HSET', owned, id, session .. '|' .. h32, '#n', string.format('%d', count), '#d',
        string.format('%d', bit.bxor(digest, tonumber(h32))))
    return ''
end

-- Says whether there was one of this session.
local function drop_entry(owned, id, session)
    local entry = redis.pcall('HMGET', owned, id, '#n', '#d')
    if entry.err or not entry[1] or string.sub(entry[1], 1, #session + 1) ~= session .. '|' then
        return false
    end
    local count = (tonumber(entry[2]) or 1) - 1
    if count <= 0 then
        redis.call('DEL', owned)
    else
        redis.call('HDEL', owned, id)
        redis.call('HSET', owned, '#n', string.format('%d', count), '#d',
            string.format('%d', bit.bxor(tonumber(entry[3]) or 0, tonumber(string.sub(entry[1], #session + 2)) or 0)))
    end
    return true
end

-- Takes out the entry of the owner before, in the same step, so that its digest differs whatever becomes of the answer:
-- else an owner that nobody told would hold its connection for ever. If it is dead, whoever cleans up after it does not
-- meet this socket any more, and must still know in which groups it was counted; that is noted.
local function succeed(owned, id, owner, session, groups, ms)
    local mark = string.match(owner or '', '([^.]*)$')
    local theirs = string.sub(owned, 1, -1 - #mark) .. mark
    if #mark == 22 and theirs ~= owned and drop_entry(theirs, id, session) then
        local note = string.sub(theirs, 1, -1 - #'owned:' - #mark) .. 'left:' .. mark
        for i = 1, 5 do
            groups[i] = groups[i] or ''
        end
        local noted = redis.pcall('HSET', note, id, cjson.encode({ id, session, unpack(groups) }))
        if type(noted) == 'number' then
            redis.call('PEXPIRE', note, ms)
        end
    end
end
