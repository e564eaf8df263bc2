"""The actions: what each is about, and which columns of the view contract it must bring.

The names follow the services of WS/T 846-2024 (医院信息平台交互标准) as public code shows them; the messages are our
own (docs/soap.md), because the standard's text was not available: the columns of the standard views as XML elements.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Action:
    """One action. ``views`` are the ones its rows may be of; a row is of the one that knows most of its columns.

    ``defaults`` fill columns that a row leaves out. ``requires`` are columns beyond those that the view requires.
    ``amends``: the message says one thing about a resource that is there already, such as its end: of the resource
    types named, these elements are put on top of what is stored, and the others stay.
    """

    name: str
    meaning: str
    views: tuple[str, ...]
    defaults: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    requires: tuple[str, ...] = ()
    amends: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


def _action(
    name: str,
    meaning: str,
    *views: str,
    defaults: Mapping[str, str] | None = None,
    requires: tuple[str, ...] = (),
    amends: Mapping[str, tuple[str, ...]] | None = None,
) -> Action:
    return Action(
        name,
        meaning,
        tuple("V_IOP_" + view for view in views),
        MappingProxyType(dict(defaults or {})),
        requires,
        MappingProxyType(dict(amends or {})),
    )


_INPATIENT = {"visit_class": "I"}
_OUTPATIENT = {"visit_class": "O"}
_MOVED = {"Encounter": ("status", "location", "serviceProvider", "participant")}
_LEFT = {"Encounter": ("status", "period", "location", "hospitalization", "diagnosis")}
_REPORTS = ("LAB", "EXAM")
_ORDERS = ("ORDER", "MEDICATION")

ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        each.name.lower(): each
        for each in (
            _action("PatientInfoRegister", "患者注册", "PATIENT"),
            _action("PatientInfoUpdate", "患者信息更新", "PATIENT"),
            _action("PatientInfoMerge", "患者合并", "PATIENT", requires=("merged_into_no",),
                    amends={"Patient": ("active", "link")}),
            _action("OutPatientInfoAdd", "门诊就诊登记", "ENCOUNTER", defaults=_OUTPATIENT),
            _action("OutPatientInfoUpdate", "门诊就诊更新", "ENCOUNTER", defaults=_OUTPATIENT),
            _action("InPatientInfoAdd", "入院登记", "ENCOUNTER", defaults=_INPATIENT),
            _action("InPatientInfoUpdate", "住院信息更新", "ENCOUNTER", defaults=_INPATIENT),
            _action("TransferInfoAdd", "转科转床", "ENCOUNTER", defaults=_INPATIENT | {"status": "在院"},
                    requires=("moved_at",), amends=_MOVED),
            _action("DischargeInfoAdd", "出院登记", "ENCOUNTER", defaults=_INPATIENT | {"status": "出院"},
                    requires=("end_at",), amends=_LEFT),
            _action("OrderInfoAdd", "医嘱/申请新增", *_ORDERS),
            _action("OrderInfoUpdate", "医嘱/申请更新", *_ORDERS),
            _action("ExamReportAdd", "报告新增", *_REPORTS),
            _action("ExamReportUpdate", "报告更新", *_REPORTS),
            _action("CheckReportAdd", "报告新增", *_REPORTS),
            _action("CheckReportUpdate", "报告更新", *_REPORTS),
            _action("VitalSignsAdd", "生命体征新增", "VITAL"),
            _action("CriticalValueAdd", "危急值报告", "CRITICAL"),
            _action("CriticalValueConfirm", "危急值确认", "CRITICAL", requires=("confirmed_at",)),
            _action("CriticalValueDeal", "危急值处理", "CRITICAL", requires=("handled_at",)),
            _action("DiagnosisInfoAdd", "诊断新增", "DIAGNOSIS"),
            _action("DocumentRegister", "文书注册", "DOCUMENT"),
            _action("BedInfoUpdate", "床位状态更新", "BED"),
            _action("ProviderInfoRegister", "医务人员注册", "STAFF"),
            _action("ProviderInfoUpdate", "医务人员更新", "STAFF"),
            _action("OrganizationInfoRegister", "科室注册", "DEPARTMENT"),
            _action("OrganizationInfoUpdate", "科室更新", "DEPARTMENT"),
        )
    }
)  # fmt: skip
"""The actions by their names in lower case."""
