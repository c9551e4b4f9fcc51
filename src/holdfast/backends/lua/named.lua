-- Entries of one log by their ids, in one state.
--
-- KEYS: the log. ARGV: fields of ids. Returns {bounds, hidden, place, entry, ...}; some may be forgotten ones.
local MOST = 4000
local log = redis.call('HMGET', KEYS[1], 'm', 'v')
local found = {log[1], log[2]}
for first = 1, #ARGV, MOST do
    local places = {}
    for _, place in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, first, math.min(first + MOST - 1, #ARGV)))) do
        if place then
            places[#places + 1] = place
        end
    end
    if #places > 0 then
        for n, entry in ipairs(redis.call('HMGET', KEYS[1], unpack(places))) do
            found[#found + 1] = places[n]
            found[#found + 1] = entry
        end
    end
end
return found
