# API tokens: one's own for everybody, everybody's for those who look after users.

CREATE USER 'svc' WITH PASSWORD 'a long password' ROLE service;
CREATE USER 'ann' WITH PASSWORD 'secret-of-ann';
CREATE TOKEN 'nightly' FOR USER 'svc' EXPIRES '30 days';
---- user_id, name, token, expires_at
svc | nightly | ? | ?

CREATE TOKEN 'nightly' FOR USER 'svc';
---- error 42710 has a token "nightly" already
CREATE TOKEN 'x' FOR USER 'nobody';
---- error 42704 does not exist
CREATE TOKEN 'x' FOR USER 'svc' EXPIRES 'yesterday';
---- error 22023 EXPIRES takes a span
CREATE TOKEN 'x' FOR USER 'svc' EXPIRES '2001-01-01';
---- error 22023 not in the future

-- session ann user
CREATE TOKEN 'mine' FOR USER 'ann' EXPIRES NEVER;
---- user_id, name, token, expires_at
ann | mine | ? | NULL

CREATE TOKEN 'theirs' FOR USER 'svc';
---- error 42501 may not
DROP TOKEN 'nightly' FOR USER 'svc';
---- error 42501 may not
SHOW TOKENS FOR USER 'svc';
---- error 42501 may not
SHOW TOKENS;
---- user_id, name, created_at, created_by, expires_at
ann | mine | ? | ann | NULL

-- pause

DROP TOKEN 'mine';
---- count 0
DROP TOKEN 'mine';
---- error 42704 no token "mine"

-- session root system
SHOW TOKENS;
----
svc | nightly | ? | root | ?

DROP TOKEN 'nightly' FOR USER 'svc';
---- count 0
SHOW TOKENS FOR USER 'svc';
---- user_id, name, created_at, created_by, expires_at

# A dba does not reach above.

-- session boss dba
CREATE TOKEN 'x' FOR USER 'root';
---- error 42501 root
