-- Says what came of a request that is acted upon once. The first word stands.
-- KEYS  1 its record
-- ARGV  1 token of who took it on, 2 the outcome, or '' if nothing was done and it may be tried anew
-- Says  1, or 0 if it is somebody else's by now or settled already
local was = redis.call('HMGET', KEYS[1], 'token', 'outcome')
if was[1] ~= ARGV[1] or was[2] then
    return 0
end
if ARGV[2] == '' then
    redis.call('DEL', KEYS[1])
else
    redis.call('HSET', KEYS[1], 'outcome', ARGV[2])
end
return 1
