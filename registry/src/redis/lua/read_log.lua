-- Reads entries of a log in order, as many as are wanted at once, and where it ends.
-- KEYS  1 log, 2 logged
-- ARGV  1 number after which, 2 entries at most, 3 one more than that, 4 bytes at most, unless the first alone is more
-- Says  {the last number that was given, 1 if there are more or 0, seq, prev, until, text, seq, …}
local said = { redis.call('HGET', KEYS[2], 't') or '0', 0 }
local bytes = 0
for nth, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[3])) do
    local fields = entry[2]
    bytes = bytes + #fields[2]
    if nth > tonumber(ARGV[2]) or (bytes > tonumber(ARGV[4]) and nth > 1) then
        said[2] = 1
        break
    end
    local at = #said
    said[at + 1], said[at + 2], said[at + 3], said[at + 4] =
        string.match(entry[1], '^%d+'), fields[4], fields[6], fields[2]
end
return said
