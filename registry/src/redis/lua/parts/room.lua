-- The room in a stream of deliveries: each entry says (m text, p or k, u until, c bytes before it), so that what is in it
-- is the bytes so far less those before its first.

-- Says how many bytes are surely trimmed of it, by what is known of that, and up to which number it was trimmed here, if
-- it was. What is over goes, by now in ms, and only when there is no room for more.
local function make_room(stream, now, bytes, gone, more, most)
    local up_to
    while bytes + more - gone > most do
        local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
        gone = first and tonumber(first[2][8]) or bytes
        if not first or bytes + more - gone <= most or tonumber(first[2][6]) > now then
            break
        end
        local some = redis.call('XRANGE', stream, '-', '+', 'COUNT', 50)
        local nth = 1
        while some[nth + 1] and tonumber(some[nth + 1][2][6]) <= now do
            nth = nth + 1
        end
        up_to = string.match(some[nth][1], '^%d+')
        redis.call('XTRIM', stream, 'MINID', string.format('%.0f', tonumber(up_to) + 1))
    end
    return gone, up_to
end
