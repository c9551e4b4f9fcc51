-- Which of the commands of the other scripts this user may not run: one that is refused half way has written a part.
--
-- KEYS: one that is not used for anything. It is gone afterwards. Returns the names.
local key, denied = KEYS[1], {}
local function try(name, ...)
    local answer = redis.pcall(name, ...)
    local error = type(answer) == 'table' and answer.err
    if error and (string.find(error, 'ACL') or string.find(error, 'NOPERM') or string.find(error, "can't run")
            or string.find(error, 'nknown')) then
        denied[#denied + 1] = name
    end
end
try('SET', key, 'x')
try('SETRANGE', key, 0, 'x')
try('GETRANGE', key, 0, 0)
try('GET', key)
try('UNLINK', key)
try('HSET', key, 'x', 'x')
try('HGET', key, 'x')
try('HMGET', key, 'x')
try('HDEL', key, 'x')
try('TIME')
try('ZADD', key, 0, 'x')
try('ZRANGE', key, -1, -1, 'WITHSCORES')
try('ZREM', key, 'x')
try('SADD', key, 'x')
try('SREM', key, 'x')
try('UNLINK', key)
return denied
