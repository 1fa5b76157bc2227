-- Puts right what is written over an owner's entries, which were read and found right. Whoever takes one of them
-- away meanwhile changes count or digest: then nothing is done, or nobody would find out that it is gone.
-- KEYS  1 owned
-- ARGV  1 count and 2 digest as they were read before the entries, '' for none, 3 count and 4 digest as they have to be
-- Says  1, or 0 if something changed
local was = redis.call('HMGET', KEYS[1], '#n', '#d')
if (was[1] or '') ~= ARGV[1] or (was[2] or '') ~= ARGV[2] then
    return 0
end
if ARGV[3] == '0' then
    redis.call('HDEL', KEYS[1], '#n', '#d')
else
    redis.call('HSET', KEYS[1], '#n', ARGV[3], '#d', ARGV[4])
end
return 1
