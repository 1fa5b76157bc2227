-- Takes a call that is over out of its group's lists, if this instance has it. By now it may be somebody else's, and
-- without their entry nobody would find it again.
-- KEYS  1 calls that were taken
-- ARGV  1 the instance, 2 the call and its patience
-- Says  1, or 0 if it is not in its hands
local owner = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or '', '^(.*)|%d+$')
if owner ~= ARGV[1] then
    return 0
end
redis.call('HDEL', KEYS[1], ARGV[2])
return 1
