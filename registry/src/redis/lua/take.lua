-- Takes calls that wait for somebody of a group, those first that have waited longest; and those whose taker has said
-- nothing for so long that it must be gone.
-- KEYS  1 calls that wait, 2 calls that were taken
-- ARGV  1 the instance, 2 calls at most, 3 ms of grace behind a call's patience, 4 ms the lists stay
-- Says  {{call and patience…}, {others who have taken some}, {call and patience… that it has taken before}}; of those
--       that somebody else may take soon it is one of the others
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local taken = redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)
for _, call in ipairs(taken) do
    redis.call('ZREM', KEYS[1], call)
end
local others, named, own = {}, {}, {}
local given = redis.call('HGETALL', KEYS[2])
for i = 1, #given, 2 do
    local owner, due = string.match(given[i + 1], '^(.*)|(%d+)$')
    if #taken < tonumber(ARGV[2]) and (not due or tonumber(due) < now) then
        taken[#taken + 1] = given[i]
    elseif owner == ARGV[1] and tonumber(due) > now + ARGV[3] then
        own[#own + 1] = given[i]
    elseif owner and not named[owner] then
        named[owner] = true
        others[#others + 1] = owner
    end
end
for _, call in ipairs(taken) do
    local patience = string.match(call, '|(%d+)$') or '0'
    redis.call('HSET', KEYS[2], call, ARGV[1] .. '|' .. string.format('%.0f', now + patience + ARGV[3]))
end
if #taken > 0 then
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return { taken, others, own }
