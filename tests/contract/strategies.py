"""Random operations on a few paths, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from zkside.model.operation import (
    ANY_VERSION,
    OPEN_ACL,
    Acl,
    AddWatch,
    Check,
    Create,
    CreateMode,
    Delete,
    Exists,
    GetAcl,
    GetChildren,
    GetData,
    GetEphemerals,
    ReadMany,
    RemoveWatch,
    SetAcl,
    SetData,
    Sync,
    Transaction,
)

PATHS = ("/", "/a", "/a/a", "/b", "/a/a/a", "/a/b", "/b/a", "/a/n-0000000001")
paths = st.sampled_from(PATHS)
_versions = st.sampled_from((ANY_VERSION, ANY_VERSION, 0, 1, 2))
_data = st.sampled_from((b"", b"x", b"longer"))
_acls = st.sampled_from(
    (
        OPEN_ACL,
        OPEN_ACL,
        OPEN_ACL,
        (),
        (Acl(31, "auth", ""),),
        (Acl(1 | 4, "world", "anyone"), Acl(16, "ip", "127.0.0.1")),
        (Acl(31 & ~16, "world", "anyone"),),
        (Acl(31, "world", "somebody"),),
    )
)
_PLAIN_MODES = (CreateMode.PERSISTENT, CreateMode.PERSISTENT, CreateMode.EPHEMERAL)
_SEQUENTIAL_MODES = (CreateMode.PERSISTENT_SEQUENTIAL, CreateMode.EPHEMERAL_SEQUENTIAL)

_creates = st.builds(Create, paths, _data, st.sampled_from(_PLAIN_MODES), _acls) | st.builds(
    Create, st.sampled_from(("/a/n-", "/b/n-", "/a/")), _data, st.sampled_from(_SEQUENTIAL_MODES)
)
_perishable = st.builds(Create, paths, mode=st.just(CreateMode.CONTAINER)) | st.builds(
    Create, paths, mode=st.just(CreateMode.PERSISTENT_WITH_TTL), ttl_ms=st.just(10_000_000)
)
_parts = (
    _creates
    | _creates
    | st.builds(SetData, paths, _data, _versions)
    | st.builds(Delete, paths, _versions)
    | st.builds(Check, paths, _versions)
)
transactions = st.lists(_parts, max_size=5).map(tuple).map(Transaction)
writes = (
    _creates
    | _creates
    | _perishable
    | st.builds(SetData, paths, _data, _versions)
    | st.builds(Delete, paths, _versions)
    | st.builds(SetAcl, paths, _acls, _versions)
    | transactions
)
_reads = (
    st.builds(GetData, paths)
    | st.builds(Exists, paths)
    | st.builds(GetChildren, paths)
    | st.builds(GetAcl, paths)
    | st.builds(ReadMany, st.lists(st.builds(GetData, paths) | st.builds(GetChildren, paths)).map(tuple))
    | st.builds(Sync, paths)
    | st.just(GetEphemerals())
)
_watches = st.builds(AddWatch, paths, st.booleans()) | st.builds(RemoveWatch, paths)
operations = writes | writes | _reads | _watches
