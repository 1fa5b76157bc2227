-- Writes a page of the book of keys, or takes it out, if what stands there is what the writer has seen.
-- KEYS  1 book: pages by name, and #n how often it was changed
-- ARGV  1 name, 2 the page as it was seen, or '' if there was none, 3 the page, or '' to take it out
-- Says  1, or 0 if something else stands there. Said again after it was done: 1
local was = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if was ~= ARGV[2] then
    return was == ARGV[3] and 1 or 0
end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
redis.call('HINCRBY', KEYS[1], '#n', 1)
return 1
