<?xml version="1.0" encoding="UTF-8"?>
<!-- CDA narrative (Section.text, NarrativeBlock) to the part of XHTML that FHIR allows (narrative, txt-1).
     Only what is listed here comes through: no scripts, no styles, no references to anything outside. -->
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform" xmlns:v3="urn:hl7-org:v3"
    xmlns="http://www.w3.org/1999/xhtml" exclude-result-prefixes="v3">
  <xsl:output method="xml" omit-xml-declaration="yes" encoding="UTF-8"/>

  <!-- One div for each of the texts under the root that is put around them. -->
  <xsl:template match="/">
    <body><xsl:for-each select="/*/v3:text"><div><xsl:apply-templates/></div></xsl:for-each></body>
  </xsl:template>

  <!-- Anything unknown loses its tags and keeps its text. -->
  <xsl:template match="*"><xsl:apply-templates/></xsl:template>

  <xsl:template match="v3:paragraph"><p><xsl:call-template name="marks"/><xsl:apply-templates/></p></xsl:template>
  <xsl:template match="v3:content"><span><xsl:call-template name="marks"/><xsl:apply-templates/></span></xsl:template>
  <xsl:template match="v3:br"><br/></xsl:template>
  <xsl:template match="v3:sub"><sub><xsl:apply-templates/></sub></xsl:template>
  <xsl:template match="v3:sup"><sup><xsl:apply-templates/></sup></xsl:template>
  <xsl:template match="v3:footnote"><span class="footnote"><xsl:call-template name="id"/><xsl:apply-templates/></span></xsl:template>
  <xsl:template match="v3:linkHtml"><span><xsl:call-template name="id"/><xsl:apply-templates/></span></xsl:template>
  <xsl:template match="v3:renderMultiMedia"><xsl:apply-templates select="v3:caption"/></xsl:template>

  <xsl:template match="v3:list">
    <xsl:apply-templates select="v3:caption"/>
    <xsl:choose>
      <xsl:when test="@listType='ordered'"><ol><xsl:call-template name="marks"/><xsl:apply-templates select="v3:item"/></ol></xsl:when>
      <xsl:otherwise><ul><xsl:call-template name="marks"/><xsl:apply-templates select="v3:item"/></ul></xsl:otherwise>
    </xsl:choose>
  </xsl:template>
  <xsl:template match="v3:item"><li><xsl:call-template name="marks"/><xsl:apply-templates/></li></xsl:template>

  <xsl:template match="v3:caption"><p><xsl:call-template name="marks"/><b><xsl:apply-templates/></b></p></xsl:template>
  <xsl:template match="v3:table/v3:caption"><caption><xsl:call-template name="marks"/><xsl:apply-templates/></caption></xsl:template>

  <xsl:template match="v3:table"><table><xsl:call-template name="marks"/><xsl:call-template name="grid"/><xsl:apply-templates select="v3:*"/></table></xsl:template>
  <xsl:template match="v3:thead"><thead><xsl:call-template name="marks"/><xsl:apply-templates select="v3:*"/></thead></xsl:template>
  <xsl:template match="v3:tbody"><tbody><xsl:call-template name="marks"/><xsl:apply-templates select="v3:*"/></tbody></xsl:template>
  <xsl:template match="v3:tfoot"><tfoot><xsl:call-template name="marks"/><xsl:apply-templates select="v3:*"/></tfoot></xsl:template>
  <xsl:template match="v3:colgroup"><colgroup><xsl:call-template name="grid"/><xsl:apply-templates select="v3:col"/></colgroup></xsl:template>
  <xsl:template match="v3:col"><col><xsl:call-template name="grid"/></col></xsl:template>
  <xsl:template match="v3:tr"><tr><xsl:call-template name="marks"/><xsl:call-template name="grid"/><xsl:apply-templates select="v3:*"/></tr></xsl:template>
  <xsl:template match="v3:th"><th><xsl:call-template name="marks"/><xsl:call-template name="grid"/><xsl:apply-templates/></th></xsl:template>
  <xsl:template match="v3:td"><td><xsl:call-template name="marks"/><xsl:call-template name="grid"/><xsl:apply-templates/></td></xsl:template>

  <xsl:template name="id"><xsl:if test="@ID"><xsl:attribute name="id"><xsl:value-of select="@ID"/></xsl:attribute></xsl:if></xsl:template>
  <xsl:template name="marks">
    <xsl:if test="@*">
      <xsl:call-template name="id"/>
      <xsl:if test="@styleCode"><xsl:attribute name="class"><xsl:value-of select="@styleCode"/></xsl:attribute></xsl:if>
    </xsl:if>
  </xsl:template>
  <xsl:template name="grid">
    <!-- Over the attributes that are there: a union of all their names costs more than the rest of a table. -->
    <xsl:copy-of select="@*[contains('|colspan|rowspan|span|align|valign|border|width|cellspacing|cellpadding|scope|headers|abbr|axis|summary|', concat('|', name(), '|'))]"/>
  </xsl:template>
</xsl:stylesheet>
