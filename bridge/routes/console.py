"""The consent desk: pages on which a registrar records, confirms, changes and ends patients' consents.

``/console/consents`` finds a patient; ``…/<patient>`` shows the consents and takes a new one; ``…/<patient>/<grant>``
changes one. ``<patient>`` is the local Patient id: no identifier of a person stands in an address.

A browser signs in with HTTP Basic: any name, and the registrar's own token as the password. What a page sends counts
only when it comes from a page of this node (``_from_here``): browsers send the password along with forms of other sites
too. The pages hold no script, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bridge.auth import requires
from bridge.errors import PermissionDenied
from bridge.outcomes import Outcome
from bridge.routes.reviews import caller
from bridge.services.consent_desk import ConsentDesk

NAME, ROOT = "console", "/console/consents"
SIGN_IN = 'Basic realm="Yiqiao consents", charset="UTF-8"'
STYLE = (
    "body{font:16px/1.5 'Noto Sans CJK SC','Source Han Sans SC',sans-serif;max-width:60rem;margin:0 auto;padding:1rem;"
    "color:#111}header{border-bottom:2px solid #06c;margin-bottom:1rem;padding-bottom:.5rem}label{display:block;"
    "margin:.5rem 0}.choice{display:inline-block;margin:.2rem 1rem .2rem 0}fieldset{margin:.7rem 0;"
    "border:1px solid #999}"
    "article{border-left:4px solid #06c;padding-left:1rem;margin:1rem 0}button{font:inherit;padding:.3rem 1rem}"
    "input,select,textarea{font:inherit}summary{cursor:pointer}"
)
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("console_pages")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


def console_blueprint(node: Any) -> Blueprint:
    """Return the consent desk of ``node``."""
    blueprint = Blueprint(NAME, __name__, url_prefix=ROOT)
    desk = ConsentDesk(node.records, node.consent, node.audit, node.chain, node.signer.org, node.clock)
    title = node.settings.node.name
    blueprint.before_request(_from_here)
    _add_pages(blueprint, desk, title)
    _add_recording(blueprint, desk)
    _add_steps(blueprint, desk)
    return blueprint


def _add_pages(blueprint: Blueprint, desk: ConsentDesk, title: str) -> None:
    @blueprint.get("")
    @requires("consent.desk")
    def start() -> Response:
        """Ask whose consent it is."""
        return _page("find.html", title, systems=desk.systems())

    @blueprint.post("")
    @requires("consent.desk")
    def find() -> Response:
        """Find a patient by an identifier, which stays out of every address."""
        found = desk.find(request.form.get("system", ""), request.form.get("value", ""), caller())
        return _to(found)

    @blueprint.get("/<patient>")
    @requires("consent.desk")
    def show(patient: str) -> Response:
        """A patient's consents, and a form for a new one."""
        return _page("patient.html", title, **desk.patient(patient, caller()))

    @blueprint.get("/<patient>/<grant>")
    @requires("consent.desk")
    def change(patient: str, grant: str) -> Response:
        """A form with a consent's terms."""
        return _page("change.html", title, **desk.grant(patient, grant, caller()))

    @blueprint.get("/<patient>/<grant>/statement")
    @requires("consent.desk")
    def statement(patient: str, grant: str) -> Response:
        """The bytes that the patient or the guardian signs."""
        return Response(desk.statement(patient, grant), content_type="application/json")


def _add_recording(blueprint: Blueprint, desk: ConsentDesk) -> None:
    @blueprint.post("/<patient>")
    @requires("consent.desk")
    def record(patient: str) -> Response:
        """Record a consent: with a signed form it counts at once, without one as soon as the patient confirms."""
        fields, paper = _fields()
        desk.record(patient, fields, paper, caller())
        return _to(patient)

    @blueprint.post("/<patient>/<grant>")
    @requires("consent.desk")
    def amend(patient: str, grant: str) -> Response:
        """Change a consent's terms."""
        fields, paper = _fields()
        desk.amend(patient, grant, fields, paper, caller())
        return _to(patient)


def _add_steps(blueprint: Blueprint, desk: ConsentDesk) -> None:
    @blueprint.post("/<patient>/<grant>/confirm")
    @requires("consent.desk")
    def confirm(patient: str, grant: str) -> Response:
        """Confirm a draft by one of: code, signature, paper."""
        given = {name: request.form.get(name, "").strip() for name in ("code", "signature", "paper")}
        desk.confirm(patient, grant, given, caller())
        return _to(patient)

    @blueprint.post("/<patient>/<grant>/remind")
    @requires("consent.desk")
    def remind(patient: str, grant: str) -> Response:
        """Make another one-time code."""
        desk.remind(patient, grant, caller())
        return _to(patient)

    @blueprint.post("/<patient>/<grant>/revoke")
    @requires("consent.desk")
    def revoke(patient: str, grant: str) -> Response:
        """End a consent."""
        desk.revoke(patient, grant, caller())
        return _to(patient)


def _from_here() -> None:
    """Raise ``PermissionDenied`` for what a page of another site makes a browser send."""
    if request.method in ("GET", "HEAD"):
        return
    origin = urlsplit(request.headers.get("Origin", ""))
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or origin.netloc != request.host:
        raise PermissionDenied("a form counts only from a page of this node / 仅接受本节点页面提交的表单")


def _fields() -> tuple[Mapping[str, list[str]], str]:
    """Return the fields of a consent's form, and the number of the signed form."""
    given = request.form.to_dict(flat=False)
    return given, " ".join(given.pop("paper", [])).strip()


def _to(patient: str) -> Response:
    response = redirect(f"{ROOT}/{patient}", 303)
    assert isinstance(response, Response)
    return response


def _page(name: str, institution: str, status: int = 200, **values: Any) -> Response:
    text = _PAGES.get_template(name).render(style=STYLE, root=ROOT, institution=institution, **values)
    response = Response(text, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"  # with none at all, browsers hide where a form comes from
    return response


def problem_page(outcome: Outcome) -> Response:
    """Return an error as a page, with the very text that other surfaces answer with; 401 makes a browser sign in."""
    response = _page("problem.html", "", outcome.status, text=outcome.text)
    if outcome.status == 401:
        response.headers["WWW-Authenticate"] = SIGN_IN
    return response
