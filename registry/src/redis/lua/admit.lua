-- Whether a user may have one more socket, over all instances. A member is 64 characters: the owner's
-- mark (22), the id (22), the session (11), and the client, as c (named itself) or a (by its address) with
-- 8 characters of a hash.
-- KEYS  1 the user's sockets, or without a cap those of the same client alone, 2 the clients that cool down
-- ARGV  1 member, 2 acceptedAt, 3 cap, 0 for none, 4 evict | reject, 5 ms an evicted client cools down,
--       6.. members known to be stale
-- Says  {'welcome', n, m, n members that the same client left, m clients that cool down from now on, then
--       everybody else, oldest first} | {'full', 0, 0, everybody else} | {'cooling', 0, 0, everybody else} if the
--       client was evicted a moment ago, or has a later connection and would evict for an earlier one;
--       only the first adds the member, and not if a later connection of the same socket is there
local member, cap = ARGV[1], tonumber(ARGV[3])
for i = 6, #ARGV do
    redis.call('ZREM', KEYS[1], ARGV[i])
end
-- Two instances tell the time so far apart at most; within it the one that asks last is the later one.
local APART = 1000
local id, client = string.sub(member, 23, 44), string.sub(member, 56)
local is_named = string.sub(client, 1, 1) == 'c'
local same, others, outdone = {}, {}, false
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
    local held = members[i]
    local ahead = tonumber(members[i + 1]) - tonumber(ARGV[2])
    if string.sub(held, 23, 44) == id then
        -- Whether an earlier connection of the socket gives way is not decided here, and it takes no second place.
        if held ~= member and ahead > 0 then
            -- This question comes late: the socket has a later connection already.
            return { 'welcome', 0, 0 }
        end
    else
        local same_client = is_named and string.sub(held, 56) == client
        if same_client and ahead <= APART then
            same[#same + 1] = held
        else
            -- This question of the client comes late: the earlier connection counts, and evicts nobody.
            outdone = outdone or same_client
            others[#others + 1] = held
        end
    end
end
local word, now = 'welcome', 0
local beyond = cap > 0 and #others + 1 - cap or 0
if beyond > 0 then
    if ARGV[4] == 'reject' then
        word = 'full'
    else
        local t = redis.call('TIME')
        now = t[1] * 1000 + math.floor(t[2] / 1000)
        local cool = redis.call('ZSCORE', KEYS[2], client)
        if outdone or (cool and tonumber(cool) > now) then
            word = 'cooling'
        end
    end
end
local said = { word, 0, 0 }
if word == 'welcome' then
    for _, held in ipairs(same) do
        redis.call('ZREM', KEYS[1], held)
        said[#said + 1] = held
    end
    said[2] = #same
    redis.call('ZADD', KEYS[1], ARGV[2], member)
    if beyond > 0 then
        -- Decided and noted in one step. One of them that turns out to be stale is taken off again.
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
        for i = 1, beyond do
            local evicted = string.sub(others[i], 56)
            if redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[5]), evicted) == 1 then
                said[#said + 1] = evicted
                said[3] = said[3] + 1
            end
        end
        redis.call('PEXPIRE', KEYS[2], ARGV[5])
    end
end
for _, held in ipairs(cap > 0 and others or {}) do
    said[#said + 1] = held
end
return said
