-- Entries of one log by their places, in one state.
--
-- KEYS: the log. ARGV: the base that the places count from, the first and the last place, how many at the most
-- (-1: all), '1' to count them from the last.
-- Returns {bounds, hidden, the first place, entry, ...}; without places if the log counts from another base.
local MOST = 4000
local log = redis.call('HMGET', KEYS[1], 'm', 'v')
local trim, last, base = string.match(log[1] or '', '^(%d+) (%d+) (%d+) ')
if base ~= ARGV[1] then
    return {log[1], log[2]}
end
local first, upto, most = math.max(ARGV[2], trim + 1), math.min(ARGV[3], last), tonumber(ARGV[4])
if most >= 0 and upto - first + 1 > most then
    if ARGV[5] == '1' then
        first = upto - most + 1
    else
        upto = first + most - 1
    end
end
local found = {log[1], log[2], string.format('%.0f', first)}
for start = first, upto, MOST do
    local places = {}
    for place = start, math.min(start + MOST - 1, upto) do
        places[#places + 1] = string.format('%.0f', place)
    end
    for n, entry in ipairs(redis.call('HMGET', KEYS[1], unpack(places))) do
        found[#found + 1] = entry
    end
end
return found
