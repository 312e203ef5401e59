"""Whether a changed schema may take the place of the stored one, under the same type version.

Events live on in topics, and services are deployed one by one: the new reader meets old events and the old reader new
ones. So a schema may only grow by optional fields. Whatever else must change makes a new version of the type.
"""

from typing import Any, Final

Schema = dict[str, Any]

_ANNOTATIONS: Final = frozenset({"$schema", "$id", "title", "description", "examples"})
_STRUCTURE: Final = frozenset({"properties", "required", "items", "anyOf"})


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Say what an old reader of new events, or a new reader of old ones, would trip over; empty means nothing."""
    return _compare("", old, new)


def _compare(path: str, old: Schema, new: Schema) -> list[str]:
    where = path or "the event"
    found = [
        f"{where}: {keyword} was {old.get(keyword)!r} and is {new.get(keyword)!r}"
        for keyword in sorted((set(old) | set(new)) - _ANNOTATIONS - _STRUCTURE)
        if _settled(old, keyword) != _settled(new, keyword)
    ]
    found += _compare_members(path, old, new)
    if ("items" in old) != ("items" in new):
        found.append(f"{where}: items appeared or vanished")
    elif "items" in old:
        found += _compare(f"{path}[]", old["items"], new["items"])
    return found + _compare_alternatives(path, old.get("anyOf", []), new.get("anyOf", []))


def _settled(schema: Schema, keyword: str) -> object:
    """Return a keyword's value in a form in which equal meanings are equal."""
    value = schema.get(keyword)
    return sorted(value, key=repr) if keyword == "enum" and isinstance(value, list) else (keyword in schema, value)


def _compare_members(path: str, old: Schema, new: Schema) -> list[str]:
    old_members, new_members = old.get("properties", {}), new.get("properties", {})
    old_required, new_required = set(old.get("required", ())), set(new.get("required", ()))
    found = []
    for name in sorted(set(old_members) | set(new_members)):
        member_path = f"{path}.{name}".removeprefix(".")
        if name not in new_members:
            found.append(f"{member_path}: removed or renamed")
        elif name not in old_members:
            found += [f"{member_path}: added, but required"] if name in new_required else []
        else:
            if (name in old_required) != (name in new_required):
                found.append(f"{member_path}: {'became' if name in new_required else 'is no longer'} required")
            found += _compare(member_path, old_members[name], new_members[name])
    return found


def _compare_alternatives(path: str, old: list[Schema], new: list[Schema]) -> list[str]:
    if len(old) != len(new):
        return [f"{path or 'the event'}: had {len(old)} alternatives and has {len(new)}"]
    return [line for one, other in zip(old, new, strict=True) for line in _compare(path, one, other)]
