"""One small hospital in the tables of five HIS families, each with that family's habits; all of it invented.

The same story in each: 张三 lies in bed 12 of ward W1 under Dr 赵, has a nursing order and takes amoxicillin; 李四 has left.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CHAR,
    Column,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
)
from sqlalchemy.schema import CreateSchema
from sqlalchemy.sql.elements import quoted_name

ID_NUMBER = "33019919900307801X"
ADMITTED, LEFT, BORN = datetime(2026, 1, 1, 8), datetime(2026, 1, 3, 10, 30), datetime(1990, 3, 7)  # noqa: DTZ001
ORDERED = datetime(2026, 1, 1, 9, 15)  # noqa: DTZ001 - a database gives times without a zone
OLD = datetime(2019, 5, 6)  # noqa: DTZ001


@dataclass(frozen=True)
class HisTable:
    """A table: columns as "NAME:type" (s text, c blank-padded text, i integer, n number, d time, b bytes), rows."""

    name: str
    columns: str
    rows: Sequence[tuple[Any, ...]]


def gbk(text: str) -> bytes:
    return text.encode("gbk")


JUNWEI = (
    HisTable("DEPT_DICT", "DEPT_CODE:s8 DEPT_NAME:s40 DEPT_ALIAS:s20",
             [("0101", "心血管内科", "心内科"), ("W1", "心内科病区", None)]),
    HisTable("STAFF_DICT", "EMP_NO:s8 NAME:s20 DEPT_CODE:s8 JOB:s20 TITLE:s20",
             [("1001", "赵医生", "0101", "医生", "主任医师"), ("2001", "钱护士", "W1", "护士", "护师")]),
    HisTable("PAT_MASTER_INDEX",
             "PATIENT_ID:c10 NAME:c20 SEX:c4 DATE_OF_BIRTH:d ID_NO:s18 NATION:s10 PHONE_NUMBER_HOME:s16 "
             "MAILING_ADDRESS:s40 ZIP_CODE:s6 NEXT_OF_KIN:s20 RELATIONSHIP:s10 NEXT_OF_KIN_PHONE:s16 CREATE_DATE:d "
             "LAST_VISIT_DATE:d",
             [("P1", "张三", "男", BORN, ID_NUMBER, "汉族", "1390000", "某路1号", None, "张四", "配偶", None, OLD, ADMITTED),
              ("P2", "李四", "女", None, None, None, None, None, None, None, None, None, OLD, None)]),
    HisTable("PAT_VISIT",
             "PATIENT_ID:c10 VISIT_ID:i ADMISSION_DATE_TIME:d DISCHARGE_DATE_TIME:d DEPT_ADMISSION_TO:s8 "
             "DEPT_DISCHARGE_FROM:s8 DOCTOR_IN_CHARGE:s20",
             [("P1", 2, ADMITTED, None, "0101", None, "赵医生"), ("P2", 1, ADMITTED, LEFT, "0101", "0101", "赵医生")]),
    HisTable("PATS_IN_HOSPITAL",
             "PATIENT_ID:c10 VISIT_ID:i WARD_CODE:s8 DEPT_CODE:s8 BED_NO:i ADM_WARD_DATE_TIME:d DOCTOR_IN_CHARGE:s20 "
             "DEPT_CODE_LEND:s8 LEND_INDICATOR:i",
             [("P1", 2, "W1", "0101", 12, ADMITTED, "赵医生", None, 0)]),
    HisTable("CLINIC_MASTER",
             "VISIT_DATE:d VISIT_NO:i PATIENT_ID:c10 REGISTERING_DATE:d VISIT_DEPT:s8 DOCTOR:s20",
             [(OLD, 7, "P2", OLD, "0101", "赵医生")]),
    HisTable("BED_REC", "WARD_CODE:s8 BED_NO:i ROOM_NO:s8 DEPT_CODE:s8 BED_CLASS:s10 BED_STATUS:s1",
             [("W1", 12, None, "0101", "普通", "1"), ("W1", 13, None, "0101", "加床", "0")]),
    HisTable("ORDERS",
             "PATIENT_ID:c10 VISIT_ID:i ORDER_NO:i ORDER_SUB_NO:i REPEAT_INDICATOR:i ORDER_CLASS:s1 ORDER_CODE:s20 "
             "ORDER_TEXT:s80 DOSAGE:n DOSAGE_UNITS:s8 ADMINISTRATION:s20 FREQUENCY:s16 START_DATE_TIME:d "
             "STOP_DATE_TIME:d DOCTOR:s20 ENTER_DATE_TIME:d ORDER_STATUS:s1",
             [("P1", 2, 1, 1, 1, "H", "HL1", "一级护理", None, None, None, "1/日", ORDERED, None, "赵医生", ORDERED, "2"),
              ("P1", 2, 2, 1, 1, "A", "AMX", "阿莫西林胶囊", 0.5, "g", "口服", "3/日", ORDERED, None, "赵医生", ORDERED, "2")]),
    HisTable("DIAGNOSIS",
             "PATIENT_ID:c10 VISIT_ID:i DIAGNOSIS_TYPE:s1 DIAGNOSIS_NO:i DIAGNOSIS_DESC:s80 DIAGNOSIS_DATE:d "
             "TREAT_RESULT:s8", [("P1", 2, "2", 1, "不稳定性心绞痛", ADMITTED, None)]),
    HisTable("DIAGNOSTIC_CATEGORY",
             "PATIENT_ID:c10 VISIT_ID:i DIAGNOSIS_TYPE:s1 DIAGNOSIS_NO:i DIAGNOSIS_CODE:s16",
             [("P1", 2, "2", 1, "I20.000")]),
    HisTable("LAB_TEST_MASTER",
             "TEST_NO:s10 PATIENT_ID:c10 VISIT_ID:i SPECIMEN:s10 SPCM_RECEIVED_DATE_TIME:d RESULTS_RPT_DATE_TIME:d "
             "TRANSCRIPTIONIST:s20", [("T1", "P1", 2, "血清", ORDERED, LEFT, "李检验")]),
    HisTable("LAB_RESULT",
             "TEST_NO:s10 ITEM_NO:i PRINT_ORDER:i REPORT_ITEM_CODE:s10 REPORT_ITEM_NAME:s40 RESULT:s20 UNITS:s20 "
             "PRINT_CONTEXT:s20 ABNORMAL_INDICATOR:s4 RESULT_DATE_TIME:d",
             [("T1", 1, 1, "GLU", "葡萄糖", "6.10", "mmol/L", "3.9-6.1", "N", ORDERED),
              ("T1", 1, 2, "K", "钾", "７.10", "mmol/L", "3.5-5.5", "HH", ORDERED)]),
    HisTable("VITAL_SIGNS_REC",
             "PATIENT_ID:c10 VISIT_ID:i TIME_POINT:d VITAL_SIGNS:s20 VITAL_SIGNS_VALUES:n UNITS:s8",
             [("P1", 2, ORDERED, "体温", 36.5, "℃")]),
)  # fmt: skip

WINNING = (
    HisTable("YY_KSBMK", "id:c8 name:s40 jlzt:i", [("0101", "心血管内科", 0), ("W1", "心内科病区", 0)]),
    HisTable("YY_ZGDMK", "id:c8 name:s20 ks_id:c8 zglb:s20 zc:s20 jlzt:i",
             [("1001", "赵医生", "0101", "医生", "主任医师", 0)]),
    HisTable("SF_BRXXK",
             "patid:i hzxm:c20 sex:c4 birth:c8 sfzh:s18 lxdh:s16 lxdz:s40 cardno:s20 gxrq:c16",
             [(700, "李四", "女", "", "", None, None, None, "2019050608:00:00")]),
    HisTable("ZY_BRXXK", "patid:i hzxm:c20 sex:c4 birth:c8 sfzh:s18 lxdh:s16 lxdz:s40 gxrq:c16",
             [(1, "张三", "男", "19900307", ID_NUMBER, "1390000", "某路1号", "2026010108:00:00"),
              (2, "李四", "女", "", "", None, None, "2026010108:00:00")]),
    HisTable("ZY_BRSYK",
             "syxh:i patid:i ryrq:c16 rqrq:c16 cqrq:c16 cyrq:c16 brzt:i ksdm:c8 bqdm:c8 cwdm:s8 ysdm:c8 zddm:s16 "
             "zdmc:s40",
             [(11, 1, "2026010108:00:00", "2026010108:00:00", None, None, 1, "0101", "W1", "１２", "1001", "I20.000",
               "不稳定性心绞痛"),
              (12, 2, "2026010108:00:00", "2026010108:00:00", "2026010310:30:00", "2026010310:30:00", 3, "0101", "W1",
               "13", "1001", None, None)]),
    HisTable("ZY_BCDMK", "id:s8 bqdm:c8 ksdm:c8 fjh:s8 zcbz:i cwlx:s10",
             [("12", "W1", "0101", None, 1, "普通"), ("13", "W1", "0101", None, 0, "普通")]),
    HisTable("BQ_CQYZK",
             "xh:i patid:i syxh:i fzxh:i yzlb:s2 yzzt:i ypdm:s20 ypmc:s60 ypgg:s40 ypjl:n jldw:s8 ypyf:s20 pcdm:s8 "
             "lrrq:c16 ksrq:c16 tzrq:c16 ysdm:c8",
             [(501, 1, 11, 501, "1", 2, "AMX", "阿莫西林胶囊", "0.25g", 0.5, "g", "口服", "tid", "2026010109:15:00",
               "2026010109:15:00", None, "1001")]),
    HisTable("BQ_LSYZK",
             "xh:i patid:i syxh:i yzlb:s2 yzzt:i ypdm:s20 ypmc:s60 lrrq:c16 ksrq:c16 zxrq:c16 ysdm:c8 zxksdm:c8",
             [(601, 1, 11, "3", 1, "HL1", "一级护理", "2026010109:15:00", "2026010109:15:00", None, "1001", "W1")]),
)  # fmt: skip

BSOFT = (
    HisTable("GY_KSDM", "KSDM:i KSMC:b SJKS:i", [(101, gbk("心血管内科"), None), (201, gbk("心内科病区"), 101)]),
    HisTable("GY_YGDM", "YGDM:s8 YGXM:b YGXB:i KSDM:i YGLB:s20 ZYZSH:s20", [("1001", gbk("赵医生"), 1, 101, "医生", "L1")]),
    HisTable("MS_BRDA",
             "BRID:i BRXM:b BRXB:i CSNY:d SFZH:s18 JTDH:s16 HKDZ:b LXRM:b LXDH:s16 JDSJ:d XGSJ:d",
             [(1, gbk("张三"), 1, BORN, ID_NUMBER, "1390000", gbk("某路1号"), None, None, OLD, ADMITTED),
              (2, gbk("李四"), 2, None, None, None, None, None, None, OLD, None)]),
    HisTable("ZY_BRRY",
             "ZYH:i BRID:i DJRQ:d RYRQ:d CYRQ:d CYPB:i BRKS:i BRBQ:i BRCH:s8 ZYYS:s8",
             [(11, 1, ADMITTED, ADMITTED, None, 0, 101, 201, "12", "1001"),
              (12, 2, ADMITTED, ADMITTED, LEFT, 8, 101, 201, "13", "1001")]),
    HisTable("ZY_CWSZ", "BRCH:s8 BRBQ:i CWKS:i FJHM:s8 CWXB:i CWZT:i",
             [("12", 201, 101, None, 3, 1), ("13", 201, 101, None, 2, 0)]),
    HisTable("ZY_BQYZ",
             "JLXH:i ZYH:i YZZH:i YPLX:i YPXH:i YZMC:b YCJL:n JLDW:b YPYF:b SYPC:s8 LSYZ:i YZZT:i CZSJ:d KSSJ:d TZSJ:d "
             "YSGH:s8 ZXKS:i",
             [(501, 11, 501, 1, 33, gbk("阿莫西林胶囊"), 0.5, gbk("g"), gbk("口服"), "tid", 0, 1, ORDERED, ORDERED, None,
               "1001", None),
              (502, 11, 502, 0, 44, gbk("一级护理"), None, None, None, "qd", 0, 1, ORDERED, ORDERED, None, "1001", 201)]),
)  # fmt: skip

NEUSOFT = (
    HisTable("COM_DEPARTMENT", "DEPT_CODE:s8 DEPT_NAME:s40 DEPT_TYPE:s2 VALID_STATE:s1 OPER_DATE:d",
             [("0101", "心血管内科", "I", "1", OLD), ("W1", "心内科病区", "N", "1", OLD)]),
    HisTable("COM_EMPLOYEE",
             "EMPL_CODE:s8 EMPL_NAME:s20 SEX_CODE:s1 DEPT_CODE:s8 EMPL_TYPE:s2 LEVL_CODE:s4 OPER_DATE:d",
             [("1001", "赵医生", "M", "0101", "D", "1", OLD)]),
    HisTable("COM_PATIENTINFO",
             "CARD_NO:s14 NAME:s20 SEX_CODE:s1 BIRTHDAY:d IDENNO:s18 HOME_TEL:s16 HOME:s40 LINKMAN_NAME:s20 "
             "LINKMAN_TEL:s16 OPER_DATE:d",
             [("0000000001", "张三", "M", BORN, ID_NUMBER, "1390000", "某路1号", None, None, ADMITTED),
              ("0000000002", "李四", "F", None, None, None, None, None, None, ADMITTED)]),
    HisTable("FIN_IPR_INMAININFO",
             "INPATIENT_NO:s14 CARD_NO:s14 IN_STATE:s1 IN_DATE:d OUT_DATE:d DEPT_CODE:s8 DEPT_NAME:s40 "
             "NURSE_CELL_CODE:s8 NURSE_CELL_NAME:s40 BED_NO:s8 CHARGE_DOC_CODE:s8 CHARGE_DOC_NAME:s20 "
             "CLINIC_DIAGNOSE:s80 OPER_DATE:d",
             [("ZY010000000001", "0000000001", "I", ADMITTED, None, "0101", "心血管内科", "W1", "心内科病区", "12", "1001",
               "赵医生", "不稳定性心绞痛", ADMITTED),
              ("ZY010000000002", "0000000002", "O", ADMITTED, LEFT, "0101", "心血管内科", "W1", "心内科病区", "13", "1001",
               "赵医生", None, LEFT)]),
    HisTable("COM_BEDINFO", "BED_NO:s8 NURSE_CELL_CODE:s8 WARD_NO:s8 BED_STATE:s1 VALID_STATE:s1",
             [("12", "W1", None, "O", "1"), ("13", "W1", None, "U", "1")]),
    HisTable("MET_IPM_ORDER",
             "MO_ORDER:s20 CARD_NO:s14 INPATIENT_NO:s14 COMB_NO:s20 ITEM_TYPE:s1 CLASS_CODE:s4 DECMPS_STATE:s1 "
             "MO_STAT:s1 ITEM_CODE:s20 ITEM_NAME:s60 DOSE_ONCE:n DOSE_UNIT:s8 USE_NAME:s20 FREQUENCY_CODE:s8 QTY_TOT:n "
             "PRICE_UNIT:s8 MO_DATE:d CONFIRM_DATE:d DC_DATE:d DATE_BGN:d DATE_END:d DOC_CODE:s8 DOC_NAME:s20 "
             "EXEC_DPCD:s8 EXEC_DPNM:s40",
             [("501", "0000000001", "ZY010000000001", "501", "1", "P", "1", "2", "AMX", "阿莫西林胶囊", 0.5, "g", "口服",
               "TID", 1, "盒", ORDERED, None, None, ORDERED, None, "1001", "赵医生", None, None),
              ("502", "0000000001", "ZY010000000001", "502", "2", "UN", "1", "2", "HL1", "一级护理", None, None, None,
               "QD", 1, "日", ORDERED, None, None, ORDERED, None, "1001", "赵医生", "W1", "心内科病区")]),
    HisTable("PHA_COM_BASEINFO",
             "DRUG_CODE:s20 TRADE_NAME:s60 SPECS:s40 DOSE_MODEL_CODE:s20 GB_CODE:s40",
             [("AMX", "阿莫西林胶囊", "0.25g*24粒", "胶囊剂", None)]),
)  # fmt: skip

ZLHIS = (
    HisTable("部门表", "ID:i 上级ID:i 编码:s8 名称:s40", [(1, None, "0101", "心血管内科"), (2, 1, "W1", "心内科病区")]),
    HisTable("人员表", "ID:i 编号:s8 姓名:s20 性别:s4 出生日期:d 专业技术职务:s20", [(9, "1001", "赵医生", "男", None, "主任医师")]),
    HisTable("部门人员", "部门ID:i 人员ID:i 缺省:i", [(1, 9, 1), (2, 9, 0)]),
    HisTable("病人信息",
             "病人ID:i 姓名:s20 性别:s4 出生日期:d 身份证号:s18 民族:s10 婚姻状况:s10 家庭电话:s16 家庭地址:s40 联系人姓名:s20 "
             "联系人关系:s10 联系人电话:s16 医保号:s20 登记时间:d 就诊时间:d 入院时间:d",
             [(1, "张三", "男", BORN, ID_NUMBER, "汉族", "已婚", "1390000", "某路1号", None, None, None, None, OLD, None,
               ADMITTED),
              (2, "李四", "女", None, None, None, None, None, None, None, None, None, None, OLD, None, ADMITTED)]),
    HisTable("病案主页",
             "病人ID:i 主页ID:i 病人性质:i 登记时间:d 入院日期:d 出院日期:d 出院科室ID:i 当前病区ID:i 出院病床:s8 住院医师:s20",
             [(1, 2, 0, ADMITTED, ADMITTED, None, 1, 2, "12", "赵医生"),
              (2, 1, 0, ADMITTED, ADMITTED, LEFT, 1, 2, "13", "赵医生")]),
    HisTable("病人变动记录", "ID:i 病人ID:i 主页ID:i 开始时间:d 终止时间:d 附加床位:i 病区ID:i 床号:s8",
             [(1, 1, 2, OLD, ADMITTED, 0, 2, "11"), (2, 1, 2, ADMITTED, None, 0, 2, "12"),
              (3, 1, 2, ADMITTED, None, 1, 2, "加1")]),
    HisTable("病人挂号记录", "NO:s10 病人ID:i 登记时间:d 发生时间:d 执行部门ID:i 执行人:s20 急诊:i 记录状态:i 执行状态:i",
             [("G001", 2, OLD, OLD, 1, "赵医生", 0, 1, 1), ("G002", 2, OLD, OLD, 1, "赵医生", 0, 2, 0)]),
    HisTable("床位状况记录", "病区ID:i 床号:s8 房间号:s8 性别分类:s8 床位编制:s10 状态:s8 科室ID:i",
             [(2, "12", None, "不限床", "在编", "占用", 1), (2, "13", None, "女床", "在编", "空床", 1)]),
    HisTable("病人医嘱记录",
             "ID:i 相关ID:i 病人ID:i 主页ID:i 诊疗类别:s1 诊疗项目ID:i 医嘱内容:s80 医嘱期效:i 医嘱状态:i 单次用量:n 计算单位:s8 "
             "给药途径:s20 执行频次:s16 总给予量:n 开嘱时间:d 停嘱时间:d 开始执行时间:d 执行终止时间:d 开嘱医生:s20 执行科室ID:i",
             [(501, None, 1, 2, "5", 33, "阿莫西林胶囊", 0, 5, 0.5, "g", "口服", "每天三次", 9, ORDERED, None, ORDERED, None,
               "赵医生", 1),
              (502, None, 1, 2, "H", 44, "一级护理", 0, 5, None, None, None, "每天一次", None, ORDERED, None, ORDERED, None,
               "赵医生", 2)]),
    HisTable("病人诊断记录",
             "ID:i 病人ID:i 主页ID:i 诊断类型:i 诊断次序:i 疾病ID:i 诊断描述:s80 出院情况:s8 记录日期:d 记录人:s20",
             [(1, 1, 2, 2, 1, 7, "不稳定性心绞痛", None, ADMITTED, "赵医生")]),
    HisTable("疾病编码目录", "ID:i 编码:s16 名称:s80", [(7, "I20.000", "不稳定性心绞痛")]),
)  # fmt: skip

DIALECTS = {"junwei": JUNWEI, "winning": WINNING, "bsoft": BSOFT, "neusoft": NEUSOFT, "zlhis": ZLHIS}


def create(engine: Engine, tables: Sequence[HisTable], schema: str | None = None) -> None:
    """Create tables and rows of a dialect."""
    metadata = MetaData()
    made = [
        Table(
            quoted_name(each.name, quote=True),
            metadata,
            *(_column(text) for text in each.columns.split()),
            schema=quoted_name(schema, quote=True) if schema else None,
        )
        for each in tables
    ]
    with engine.begin() as connection:
        if schema and engine.dialect.name == "postgresql":
            connection.execute(CreateSchema(schema))
        metadata.create_all(connection)
        for table, each in zip(made, tables, strict=True):
            names = [column.name for column in table.columns]
            connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in each.rows])


def _column(text: str) -> Column[Any]:
    name, _, kind = text.rpartition(":")
    size = int(kind[1:] or 0)
    types: dict[str, Any] = {
        "s": String(size), "c": CHAR(size), "i": Integer(), "n": Numeric(12, 4), "d": DateTime(), "b": LargeBinary(200),
    }  # fmt: skip
    return Column(quoted_name(name, quote=True), types[kind[0]])
