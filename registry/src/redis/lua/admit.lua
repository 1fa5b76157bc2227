-- Whether a user may have one more socket, over all instances. A member is 64 characters: the owner's
-- mark (22), the id (22), the session (11), and the client, as c (named itself) or a (by its address) with
-- 8 characters of a hash.
-- KEYS  1 the user's sockets, 2 the clients that cool down
-- ARGV  1 member, 2 acceptedAt, 3 cap, 0 for none, 4 evict | reject, 5 ms an evicted client cools down,
--       6.. members known to be stale
-- Says  {'welcome', n, n members that the same client left, then everybody else, oldest first}
--       | {'full', 0, everybody else} | {'cooling', 0, everybody else}; only the first adds the member,
--       and not if a later connection of the same socket or client is there
local member, cap = ARGV[1], tonumber(ARGV[3])
for i = 6, #ARGV do
    redis.call('ZREM', KEYS[1], ARGV[i])
end
local id, client = string.sub(member, 23, 44), string.sub(member, 56)
local is_named = string.sub(client, 1, 1) == 'c'
local same, others = {}, {}
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
    local held = members[i]
    local same_id = string.sub(held, 23, 44) == id
    local same_client = not same_id and is_named and string.sub(held, 56) == client
    if (same_id or same_client) and held ~= member and tonumber(members[i + 1]) > tonumber(ARGV[2]) then
        -- This question comes late: the socket, or its client, has a later connection already.
        return { 'welcome', 0 }
    elseif same_id then
        if held ~= member then
            redis.call('ZREM', KEYS[1], held)
        end
    elseif same_client then
        same[#same + 1] = held
    else
        others[#others + 1] = held
    end
end
local word, evicted = 'welcome', {}
if cap > 0 and #others + 1 > cap then
    if ARGV[4] == 'reject' then
        word = 'full'
    else
        local t = redis.call('TIME')
        local now = t[1] * 1000 + math.floor(t[2] / 1000)
        local cool = redis.call('ZSCORE', KEYS[2], client)
        if cool and tonumber(cool) > now then
            word = 'cooling'
        else
            -- Decided and noted in one step. One of them that turns out to be stale is taken off again.
            for i = 1, #others + 1 - cap do
                evicted[#evicted + 1] = string.format('%.0f', now + ARGV[5])
                evicted[#evicted + 1] = string.sub(others[i], 56)
            end
        end
    end
end
local said = { word, 0 }
if word == 'welcome' then
    for _, held in ipairs(same) do
        redis.call('ZREM', KEYS[1], held)
        said[#said + 1] = held
    end
    said[2] = #same
    redis.call('ZADD', KEYS[1], ARGV[2], member)
    if #evicted > 0 then
        redis.call('ZADD', KEYS[2], unpack(evicted))
        redis.call('PEXPIRE', KEYS[2], ARGV[5])
    end
end
for _, held in ipairs(cap > 0 and others or {}) do
    said[#said + 1] = held
end
return said
