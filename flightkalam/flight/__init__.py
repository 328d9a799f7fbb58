"""The wire: protobuf and Arrow bytes on one side, typed calls of a session on the other.

NOT here: SQL, policy, storage.  This room decides how a request is read and how an answer or an error is written; what
is true, allowed or visible is the session's business, which it knows only by the protocols of `ports`.

    service.py  ->  credentials.py    who is asking
                ->  dispatch.py       which command, and its one row in the table: decode, call the session, encode
                      commands.py     the typed commands
                      tickets.py      what a ticket may say
                      uploads.py      Arrow that comes in
                      streams.py      Arrow that goes out
                      metadata.py, sql_info.py, type_info.py    fixed answers
                ->  status.py         how an error leaves
"""
