-- Whether a user may have one more socket, over all instances. A member is 64 characters: the owner's
-- mark (22), the id (22), the session (11), and the client, as c (named itself) or a (by its address) with
-- 8 characters of a hash.
-- KEYS  1 the user's sockets, 2 the clients that cool down
-- ARGV  1 member, 2 acceptedAt, 3 cap, 0 for none, 4 evict | reject, 5.. members known to be stale
-- Says  {'welcome', n, n members that the same client left, then everybody else, oldest first}
--       | {'full', 0, everybody else} | {'cooling', 0, everybody else}; only the first adds the member,
--       and not if a later connection of the same socket or client is there
local member, cap = ARGV[1], tonumber(ARGV[3])
for i = 5, #ARGV do
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
local word = 'welcome'
if cap > 0 and #others + 1 > cap then
    if ARGV[4] == 'reject' then
        word = 'full'
    else
        local t = redis.call('TIME')
        local cool = redis.call('ZSCORE', KEYS[2], client)
        if cool and tonumber(cool) > t[1] * 1000 + t[2] / 1000 then
            word = 'cooling'
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
end
for _, held in ipairs(cap > 0 and others or {}) do
    said[#said + 1] = held
end
return said
