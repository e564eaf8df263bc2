"""What codes of a consent are called on pages for people: English and Chinese."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Words = Mapping[str, tuple[str, str]]

PURPOSES: Words = {
    "TREAT": ("treatment", "诊疗"),
    "ETREAT": ("emergency treatment", "急诊抢救"),
    "BTG": ("emergency", "紧急调阅"),
    "CAREMGT": ("care management", "健康管理"),
    "PATRQT": ("at your request", "本人要求"),
    "HPAYMT": ("payment", "费用结算"),
    "COVERAGE": ("insurance", "保险"),
    "HOPERAT": ("operations", "运营管理"),
    "PUBHLTH": ("public health", "公共卫生"),
    "HRESCH": ("research", "科研"),
}
CATEGORIES: Words = {
    "demographics": ("demographics", "基本信息"),
    "coverage": ("coverage", "保险保障"),
    "encounter": ("visits and stays", "就诊与住院"),
    "condition": ("diagnoses", "诊断"),
    "allergy": ("allergies", "过敏"),
    "immunization": ("immunizations", "预防接种"),
    "procedure": ("procedures", "手术操作"),
    "medication": ("medication", "用药"),
    "observation": ("observations", "检查检验结果"),
    "report": ("reports", "报告"),
    "laboratory": ("laboratory", "检验"),
    "order": ("orders", "医嘱"),
    "imaging": ("imaging", "影像"),
    "document": ("documents", "病历文书"),
    "careplan": ("care plans", "护理计划"),
    "vital-signs": ("vital signs", "生命体征"),
}
SENSITIVE: Words = {
    "ETH": ("substance abuse", "物质滥用"),
    "GDIS": ("genetic disease", "遗传病"),
    "HIV": ("HIV", "艾滋病"),
    "PSY": ("psychiatry", "精神心理"),
    "SCA": ("sickle cell anaemia", "镰状细胞贫血"),
    "SDV": ("domestic violence", "家庭暴力"),
    "SEX": ("sexual health", "性健康"),
    "SPI": ("specially protected", "特别保护"),
    "STD": ("sexually transmitted disease", "性传播疾病"),
    "SUD": ("substance use disorder", "物质使用障碍"),
}
CONFIDENTIAL: Words = {"R": ("restricted", "受限"), "V": ("very restricted", "高度受限")}
ROLES: Words = {
    "physician": ("physician", "医师"),
    "nurse": ("nurse", "护士"),
    "emergency-physician": ("emergency physician", "急诊医师"),
    "pharmacist": ("pharmacist", "药师"),
    "technician": ("technician", "技师"),
    "midwife": ("midwife", "助产士"),
    "therapist": ("therapist", "治疗师"),
    "clerk": ("clerk", "文员"),
    "administrator": ("administrator", "管理人员"),
    "researcher": ("researcher", "研究人员"),
    "payer-clerk": ("payer's clerk", "经办人员"),
    "public-health": ("public health officer", "公卫人员"),
    "patient": ("patient", "患者"),
    "system": ("system", "系统"),
}
STATES: Words = {
    "draft": ("waits for the patient", "待患者确认"),
    "pending": ("goes to the ledger", "待上链"),
    "active": ("in force", "生效"),
    "amending": ("in force; the change goes to the ledger", "生效，变更待上链"),
    "revoking": ("ended; goes to the ledger", "已终止，待上链"),
    "revoked": ("ended", "已终止"),
    "refused": ("refused by the ledger", "账本拒绝"),
}


def options(words: Words, present: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return (code, words) to choose from; codes that are ``present`` and have no words come last."""
    return [(code, both(words, code)) for code in [*words, *(each for each in present if each not in words)]]


def both(words: Words, code: str) -> str:
    """Return "english / 中文" of a code, or the code itself where it has no words."""
    return " / ".join(words.get(code, (code,)))
